//! An error in one line: what it came from, or the code that a service said no with.

use std::error::Error;

/// The error's words and those of its sources, without what says the same twice.
pub fn causes(error: &dyn Error) -> String {
    let mut told: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let text = error.to_string();
        if !told.iter().any(|before| before.contains(&text)) {
            told.push(text);
        }
    }
    told.join(": ")
}

/// What a service said no with, and what `advice` has to say to the code; it begins with what stands between the two.
pub fn refusal(code: Option<&str>, message: Option<&str>, advice: impl Fn(&str) -> &'static str) -> String {
    let code = code.unwrap_or("an error without a code");
    format!("{code} ({}){}", message.unwrap_or("no reason was given"), advice(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] Option<Box<Told>>);

    #[test]
    fn what_says_the_same_twice_is_said_once() {
        let error = Told("cannot connect", Some(Box::new(Told("connect", Some(Box::new(Told("refused", None)))))));
        assert_eq!(causes(&error), "cannot connect: refused");
    }
}
