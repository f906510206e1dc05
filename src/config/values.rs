//! Parsers of single values, each with the words for what would be right. None of these words repeats what was given.

use std::fmt::Display;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::units::{ByteSize, format_duration, parse_duration};

/// One of the words, in any case.
pub fn one_of<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let text = text.trim();
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            match words.split_last() {
                Some((last, others)) if !others.is_empty() => format!("give {} or {last}", others.join(", ")),
                _ => format!("give {}", words.concat()),
            }
        })
    }
}

pub fn boolean(text: &str) -> Result<bool, String> {
    one_of(&[("true", true), ("false", false)])(text)
}

pub fn number<T: FromStr + PartialOrd + Display>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let number = text.trim().parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("give a whole number from {} to {}", range.start(), range.end()))
    }
}

pub fn size(range: RangeInclusive<ByteSize>) -> impl Fn(&str) -> Result<ByteSize, String> {
    move |text| {
        let size: ByteSize = text.trim().parse().map_err(|error| format!("{error}"))?;
        let within = range.contains(&size).then_some(size);
        within.ok_or_else(|| format!("give a size from {} to {}", range.start(), range.end()))
    }
}

pub fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let duration = parse_duration(text.trim()).map_err(|error| error.to_string())?;
        let within = range.contains(&duration).then_some(duration);
        let words = |bound: &Duration| format_duration(*bound);
        within.ok_or_else(|| format!("give a duration from {} to {}", words(range.start()), words(range.end())))
    }
}

/// Items between commas, without the blanks around them; empty ones are left out.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// A general purpose or directory bucket, an access point's alias or its ARN.
pub fn bucket(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.contains("://") {
        return Err(String::from("give the bucket's name alone, without a scheme"));
    }
    if name.starts_with("arn:") {
        return if is_access_point_arn(name) {
            Ok(name.to_owned())
        } else {
            Err(String::from(
                "give the bucket's name, or an access point's ARN (arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME)",
            ))
        };
    }
    if name.contains('/') {
        return Err(String::from(
            "give the bucket's name alone; a prefix goes into KEY_TEMPLATE, as in `prefix/{path}`",
        ));
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_plain = name.bytes().next().is_some_and(plain) && name.bytes().last().is_some_and(plain);
    if !(3..=63).contains(&name.len())
        || !ends_plain
        || !name.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.')
    {
        return Err(String::from(
            "a bucket's name is 3 to 63 lower-case letters, digits, hyphens and dots, with a letter or digit at both ends",
        ));
    }
    if name.contains("..") || name.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(String::from("a bucket's name has no two dots in a row and is no IP address"));
    }
    Ok(name.to_owned())
}

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:accesspoint/NAME`, for S3, S3 on Outposts and multi-region access points.
fn is_access_point_arn(text: &str) -> bool {
    let parts: Vec<_> = text.splitn(6, ':').collect();
    let [_, partition, service, _, account, resource] = parts[..] else { return false };
    let named = ["accesspoint/", "accesspoint:", "outpost/", "outpost:"]
        .iter()
        .any(|kind| resource.strip_prefix(kind).is_some_and(|name| !name.is_empty()));
    (partition == "aws" || partition.starts_with("aws-"))
        && (service == "s3" || service == "s3-outposts")
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && named
}

/// A region's code. Stores that are not AWS have codes of their own, so that only the shape is checked.
pub fn region(text: &str) -> Result<String, String> {
    let region = text.trim();
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=63).contains(&region.len()) && region.bytes().all(fits) {
        Ok(region.to_owned())
    } else {
        Err(String::from("give a region's code, such as eu-central-1"))
    }
}

/// A host name or address, brackets around IPv6 taken off. Also reads the secret's `Host`, so that the words name no
/// value.
pub fn host(text: &str) -> Result<String, String> {
    let host = text.trim();
    if host.contains("://") {
        return Err(String::from("give the host alone, without a scheme"));
    }
    if host.contains('@') {
        return Err(String::from(
            "give the host alone; the user's name goes into SFTP_USERNAME or the secret's Username",
        ));
    }
    if host.contains('/') {
        return Err(String::from("give the host alone; the directory goes into SFTP_DIRECTORY_PATH"));
    }
    let with_port = || String::from("give the host alone; the port goes into PORT or the secret's Port");
    let bare = match host.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, "")) if is_ipv6(address) => address,
            Some((address, port)) if is_ipv6(address) && port.starts_with(':') => return Err(with_port()),
            _ => return Err(String::from("what stands in brackets has to be an IPv6 address")),
        },
        None if is_ipv6(host) => host,
        None if host.contains(':') => return Err(with_port()),
        None => host,
    };
    let strange = |letter: char| letter.is_whitespace() || letter.is_control() || "[]".contains(letter);
    if bare.is_empty() || bare.len() > 255 || bare.chars().any(strange) {
        return Err(String::from("give a host name or address"));
    }
    Ok(bare.to_owned())
}

/// What the server is told, as it is: SSH sets no limits but that of a line here. Also reads the secret's `Username`.
pub fn username(text: &str) -> Result<String, &'static str> {
    if text.chars().any(char::is_control) {
        Err("a user's name holds no control characters")
    } else {
        Ok(text.to_owned())
    }
}

/// An IPv6 address, with or without a zone (`fe80::1%eth0`).
fn is_ipv6(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

/// `k=v,k=v`, as S3 limits them: ten tags, keys of 1 to 128 and values of up to 256 letters, digits, blanks and `+-=._:/@`.
pub fn tags(text: &str) -> Result<Vec<(String, String)>, String> {
    let fits = |part: &str, most: usize| {
        part.chars().count() <= most
            && part.chars().all(|letter| letter.is_alphanumeric() || letter == ' ' || "+-=._:/@".contains(letter))
    };
    let mut tags: Vec<(String, String)> = Vec::new();
    for item in list(text) {
        let (key, value) = item.split_once('=').ok_or("give k=v,k=v")?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || !fits(key, 128) || !fits(value, 256) {
            return Err(String::from(
                "a tag's key is 1 to 128 and its value up to 256 letters, digits, blanks and + - = . _ : / @",
            ));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(String::from("keys that begin with aws: are AWS's own"));
        }
        if tags.iter().any(|(known, _)| known == key) {
            return Err(String::from("each key once"));
        }
        tags.push((key.to_owned(), value.to_owned()));
    }
    if tags.len() > 10 { Err(String::from("S3 allows an object ten tags")) } else { Ok(tags) }
}

/// Where only text without blanks and control characters makes sense.
pub fn word(text: &str) -> Result<String, String> {
    let word = text.trim();
    if word.is_empty() || word.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return Err(String::from("give it without blanks or line ends"));
    }
    Ok(word.to_owned())
}

/// A name that may stand in an object's key and in a record.
pub fn job_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=128).contains(&name.len()) && name.bytes().all(fits) && name.bytes().any(|byte| byte != b'.') {
        Ok(name.to_owned())
    } else {
        Err(String::from("give 1 to 128 letters, digits, hyphens, underscores and dots"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_s3_gives_buckets_are_buckets() {
        for name in [
            "abc",
            "my-bucket.2024",
            "my-point-aqfqprnstn7aefdfbarligizwgyfouse1a-s3alias",
            "fast--use1-az4--x-s3",
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine",
            "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:mine",
            "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
            "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-1/accesspoint/mine",
        ] {
            assert_eq!(bucket(name).as_deref(), Ok(name));
        }
        assert!(bucket(&"a".repeat(63)).is_ok());
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for name in [
            "ab",
            "-abc",
            "abc-",
            "a..b",
            "Abc",
            "a_b",
            "192.168.0.1",
            "s3://bucket",
            "bucket/prefix",
            "bücket",
            "arn:aws:s3:::bucket",
            "arn:aws:s3:eu-west-1:12345:accesspoint/mine",
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/",
            "arn:aws:sns:eu-west-1:123456789012:accesspoint/mine",
            "arn:",
        ] {
            assert!(bucket(name).is_err(), "{name}");
        }
        assert!(bucket(&"a".repeat(64)).is_err());
        assert!(bucket("bucket/in").expect_err("a prefix").contains("KEY_TEMPLATE"));
    }

    #[test]
    fn hosts_are_names_and_addresses_without_brackets() {
        for (text, expected) in [
            ("sftp.example.com", "sftp.example.com"),
            (" 10.0.0.1\n", "10.0.0.1"),
            ("::1", "::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("under_score", "under_score"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_more_than_a_host_says_where_the_rest_belongs() {
        for (text, hint) in [
            ("sftp://host", "scheme"),
            ("user@host", "SFTP_USERNAME"),
            ("host/dir", "SFTP_DIRECTORY_PATH"),
            ("host:22", "PORT"),
            ("[::1]:22", "PORT"),
            ("10.0.0.1:22", "PORT"),
            ("[host]", "IPv6"),
            ("[::1", "IPv6"),
            ("a b", "host name"),
            (" ", "host name"),
        ] {
            assert!(host(text).expect_err(text).contains(hint), "{text}");
        }
    }

    #[test]
    fn tags_keep_to_the_limits_of_s3() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            tags("team=data, cost=a=b ,empty="),
            Ok(vec![pair("team", "data"), pair("cost", "a=b"), pair("empty", "")])
        );
        assert_eq!(tags("größe=ä/@:+"), Ok(vec![pair("größe", "ä/@:+")]));
        for broken in ["team", "=x", "a=b,a=c", "aws:x=1", "a=b&c", &format!("{}=x", "k".repeat(129))] {
            assert!(tags(broken).is_err(), "{broken}");
        }
        let many = |count: usize| (0..count).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        assert!(tags(&many(10)).is_ok() && tags(&many(11)).is_err());
    }

    #[test]
    fn words_are_matched_in_any_case_and_listed_where_none_is() {
        assert_eq!(boolean(" True"), Ok(true));
        assert_eq!(boolean("yes"), Err(String::from("give true or false")));
        assert_eq!(one_of(&[("a", 1), ("b", 2), ("c", 3)])("d"), Err(String::from("give a, b or c")));
    }

    #[test]
    fn bounds_are_part_of_the_range_and_are_told() {
        let port = number(1_u16..=65535);
        assert_eq!((port("1"), port("65535")), (Ok(1), Ok(65535)));
        for text in ["0", "65536", "-1", "22 23", "ssh", ""] {
            assert_eq!(port(text), Err(String::from("give a whole number from 1 to 65535")), "{text}");
        }
        let part = size(ByteSize::mebibytes(5)..=ByteSize::gibibytes(5));
        assert_eq!(part("4MiB"), Err(String::from("give a size from 5MiB to 5GiB")));
        assert!(part("5MiB").is_ok() && part("5GiB").is_ok());
        let wait = duration(Duration::from_secs(1)..=Duration::from_secs(3600));
        assert_eq!(wait("999ms"), Err(String::from("give a duration from 1s to 1h")));
    }

    proptest! {
        #[test]
        fn a_host_never_holds_what_belongs_elsewhere(text in "[a-z0-9.:@/%\\[\\] -]{0,20}") {
            if let Ok(host) = host(&text) {
                prop_assert!(!host.contains(['@', '/', '[', ']', ' ']), "{}", host);
                prop_assert!(!host.contains(':') || is_ipv6(&host), "{}", host);
            }
        }
    }
}
