//! Gives libssh2-sys the headers that it looks for (`DEP_OPENSSL_INCLUDE`): AWS-LC's, with two of them extended.
//!
//! libssh2-sys has no switch for the algorithms that libssh2 leaves out by default. The servers that this program keeps
//! libssh2 for know no others, so they are switched on in the header that libssh2 reads before it decides.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Put before `openssl/opensslv.h`, which libssh2 includes first of all. Not here: MD5, RC4, Blowfish, CAST, RIPEMD.
const OLD_ALGORITHMS: &str = "\
#define LIBSSH2_3DES_ENABLE      /* 3des-cbc */
#define LIBSSH2_DSA_ENABLE       /* ssh-dss */
#define LIBSSH2_HMAC_SHA1_ENABLE /* hmac-sha1, hmac-sha1-etm@openssh.com, hmac-sha1-96 */
#define LIBSSH2_KEX_SHA1_ENABLE  /* diffie-hellman-group1-sha1, -group14-sha1, -group-exchange-sha1 */
#define LIBSSH2_RSA_SHA1_ENABLE  /* ssh-rsa */
";

/// Put after `openssl/bn.h`. libssh2 asks for its Diffie-Hellman secret with `bottom` -1, which OpenSSL takes for any
/// value that is not zero (an odd number), and AWS-LC refuses.
const BN_RAND: &str = "
static inline int openssl_bn_rand(BIGNUM *number, int bits, int top, int bottom)
{
    return BN_rand(number, bits, top, bottom ? BN_RAND_BOTTOM_ODD : BN_RAND_BOTTOM_ANY);
}
#undef BN_rand
#define BN_rand openssl_bn_rand
";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    // aws-lc-sys has its version in its `links` name, and so in this variable: DEP_AWS_LC_0_47_0_INCLUDE.
    let from = env::vars_os()
        .find_map(|(name, folder)| {
            let name = name.to_str()?;
            (name.starts_with("DEP_AWS_LC_0_") && name.ends_with("_INCLUDE")).then(|| PathBuf::from(folder))
        })
        .ok_or_else(|| io::Error::other("aws-lc-sys does not say where its headers are"))?;
    let include = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?);
    let include = include.join("include");

    copy_folder(&from, &include)?;
    extend(&include.join("openssl/opensslv.h"), |header| format!("{OLD_ALGORITHMS}{header}"))?;
    // The header's own guard does not cover what follows it.
    extend(&include.join("openssl/bn.h"), |header| format!("#pragma once\n{header}{BN_RAND}"))?;
    println!("cargo:include={}", include.display());
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn extend(header: &Path, with: impl Fn(&str) -> String) -> io::Result<()> {
    let text = fs::read_to_string(header)?;
    fs::write(header, with(&text))
}
