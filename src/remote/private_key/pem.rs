//! PEM text (RFC 7468, RFC 1421), read leniently: keys come through editors, consoles, JSON and environment variables,
//! which turn line ends into spaces, carriage returns or a literal `\n`. What they cannot change is the order of words.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;

use super::cipher::Cipher;

/// The first private key in a text.
pub struct Pem {
    /// What stands before `PRIVATE KEY`: `OPENSSH`, `ENCRYPTED`, `RSA`, `EC`, `DSA`, or nothing for PKCS#8.
    pub label: String,
    /// From `DEK-Info`: the cipher and its initialisation vector.
    pub encryption: Option<(Cipher, Vec<u8>)>,
    pub der: Zeroizing<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum PemError {
    /// No `-----BEGIN … PRIVATE KEY-----`.
    NotFound,
    /// No end line, or something between the lines that is not base64.
    Damaged,
    /// A `DEK-Info` cipher of no known name.
    UnsupportedEncryption,
}

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

pub fn read(text: &str) -> Result<Pem, PemError> {
    let text = Zeroizing::new(text.replace("\\r", "\r").replace("\\n", "\n"));
    let (label, body) = text
        .match_indices(BEGIN)
        .find_map(|(at, _)| {
            let (label, body) = text[at + BEGIN.len()..].split_once(DASHES)?;
            Some((label.strip_suffix("PRIVATE KEY")?.trim_end(), body))
        })
        .ok_or(PemError::NotFound)?;
    let (body, _) = body.split_once("-----END ").ok_or(PemError::Damaged)?;

    let mut encryption = None;
    let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
    let mut words = body.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "Proc-Type:" => _ = words.next(),
            "DEK-Info:" => encryption = Some(dek_info(words.next().ok_or(PemError::Damaged)?)?),
            base64_line => base64.push_str(base64_line),
        }
    }
    let der = STANDARD.decode(base64.as_bytes()).map_err(|_| PemError::Damaged)?;
    Ok(Pem { label: label.to_owned(), encryption, der: Zeroizing::new(der) })
}

/// The text that [`read`] reads `der` from.
pub fn write(label: &str, der: &[u8]) -> Zeroizing<String> {
    let name = if label.is_empty() { "PRIVATE KEY".to_owned() } else { format!("{label} PRIVATE KEY") };
    let body = Zeroizing::new(STANDARD.encode(der));
    Zeroizing::new(format!("-----BEGIN {name}-----\n{}\n-----END {name}-----\n", *body))
}

/// `AES-128-CBC,` and the vector in hexadecimal.
fn dek_info(value: &str) -> Result<(Cipher, Vec<u8>), PemError> {
    let (name, hex) = value.split_once(',').ok_or(PemError::Damaged)?;
    let cipher = Cipher::named(name).ok_or(PemError::UnsupportedEncryption)?;
    let iv = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<Vec<u8>>>()
        .filter(|iv| iv.len() == cipher.block())
        .ok_or(PemError::Damaged)?;
    Ok((cipher, iv))
}
