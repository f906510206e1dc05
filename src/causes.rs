//! An error and what it came from, in one line.

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
