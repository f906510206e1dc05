//! Decryption of private keys where russh does none: OpenSSL's PEM encryption, and PKCS#8 whose key derivation is
//! PBKDF2 with SHA-1 (OpenSSL before 1.1, LibreSSL, Java). Only ever decrypts.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, InnerIvInit, KeyInit};
use des::TdesEde3;
use md5::{Digest, Md5};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::pbes2::{self, Kdf, Pbkdf2Prf};
use pkcs8::pkcs5::{self, EncryptionScheme};
use secrecy::zeroize::Zeroizing;
use sha1::Sha1;

/// A block cipher in CBC mode with PKCS#7 padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    Aes128,
    Aes192,
    Aes256,
    TripleDes,
}

#[derive(Debug, PartialEq, Eq)]
pub enum CipherError {
    /// What comes out is not padded as it must be: another passphrase encrypted it.
    Passphrase,
    Unsupported,
}

impl Cipher {
    /// By its name in `DEK-Info`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "AES-128-CBC" => Self::Aes128,
            "AES-192-CBC" => Self::Aes192,
            "AES-256-CBC" => Self::Aes256,
            "DES-EDE3-CBC" => Self::TripleDes,
            _ => return None,
        })
    }

    /// Bytes of a block, and of the initialisation vector.
    pub fn block(self) -> usize {
        if self == Self::TripleDes { 8 } else { 16 }
    }

    /// Bytes of a key.
    fn key(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 => 32,
        }
    }

    pub fn decrypt(self, key: &[u8], iv: &[u8], data: &[u8]) -> Result<Zeroizing<Vec<u8>>, CipherError> {
        match self {
            Self::Aes128 => decrypt_cbc::<Aes128>(key, iv, data),
            Self::Aes192 => decrypt_cbc::<Aes192>(key, iv, data),
            Self::Aes256 => decrypt_cbc::<Aes256>(key, iv, data),
            Self::TripleDes => decrypt_cbc::<TdesEde3>(key, iv, data),
        }
    }
}

fn decrypt_cbc<C: BlockCipherDecrypt + KeyInit>(
    key: &[u8],
    iv: &[u8],
    data: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CipherError> {
    let cipher = C::new_from_slice(key).map_err(|_| CipherError::Unsupported)?;
    let mode = cbc::Decryptor::inner_iv_slice_init(cipher, iv).map_err(|_| CipherError::Unsupported)?;
    let mut buffer = Zeroizing::new(data.to_vec());
    let length = mode.decrypt_padded::<Pkcs7>(&mut buffer).map_err(|_| CipherError::Passphrase)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

/// The key that OpenSSL derives for its PEM encryption (`EVP_BytesToKey` with MD5 and one round): the digests of all
/// before, the passphrase and the first eight bytes of the vector, one after another.
pub fn key_of_openssl(cipher: Cipher, passphrase: &str, iv: &[u8]) -> Vec<u8> {
    let salt = &iv[..8.min(iv.len())];
    let mut key = Vec::with_capacity(cipher.key() + 16);
    let mut digest = Vec::new();
    while key.len() < cipher.key() {
        digest = Md5::new().chain_update(&digest).chain_update(passphrase).chain_update(salt).finalize().to_vec();
        key.extend_from_slice(&digest);
    }
    key.truncate(cipher.key());
    key
}

/// The PKCS#8 document inside an encrypted one.
pub fn decrypt_pkcs8(
    info: &EncryptedPrivateKeyInfoRef<'_>,
    passphrase: &str,
) -> Result<Zeroizing<Vec<u8>>, CipherError> {
    if let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm
        && let Kdf::Pbkdf2(kdf) = &parameters.kdf
        && kdf.prf == Pbkdf2Prf::HmacWithSha1
    {
        let (cipher, iv) = match &parameters.encryption {
            pbes2::EncryptionScheme::Aes128Cbc { iv } => (Cipher::Aes128, iv),
            pbes2::EncryptionScheme::Aes192Cbc { iv } => (Cipher::Aes192, iv),
            pbes2::EncryptionScheme::Aes256Cbc { iv } => (Cipher::Aes256, iv),
            _ => return Err(CipherError::Unsupported),
        };
        let mut key = Zeroizing::new(vec![0; cipher.key()]);
        pbkdf2::pbkdf2_hmac::<Sha1>(passphrase.as_bytes(), kdf.salt.as_ref(), kdf.iteration_count, &mut key);
        return cipher.decrypt(&key, iv, info.encrypted_data.as_bytes());
    }
    match info.encryption_algorithm.decrypt(passphrase, info.encrypted_data.as_bytes()) {
        Ok(plain) => Ok(Zeroizing::new(plain)),
        Err(pkcs5::Error::DecryptFailed) => Err(CipherError::Passphrase),
        Err(_) => Err(CipherError::Unsupported),
    }
}
