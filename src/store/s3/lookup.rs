//! Whether an object is there that a request sent whose own answer was lost.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::StorageClass;

use crate::checksum::Crc64Nvme;
use crate::config::ObjectAttributes;
use crate::store::NewObject;

/// What a bucket stores an object as that is put without a class (PutObject, `x-amz-storage-class`).
const BY_DEFAULT: [&str; 3] = ["STANDARD", "EXPRESS_ONEZONE", "OUTPOSTS"];

/// Whether this is `object`, with these bytes, or one of another run that does not differ from it. Its content type, its
/// tags, the KMS key and an encryption that was not asked for are not compared.
pub fn is_it(head: &HeadObjectOutput, object: &NewObject, checksum: Crc64Nvme, attributes: &ObjectAttributes) -> bool {
    let has = |(name, value): &(&'static str, String)| head.metadata().and_then(|all| all.get(*name)) == Some(value);
    // Left out for the standard class (HeadObject, `x-amz-storage-class`).
    let class = head.storage_class().unwrap_or(&StorageClass::Standard).as_str();
    let sse = head.server_side_encryption().map(|sse| sse.as_str());
    head.checksum_crc64_nvme() == Some(checksum.to_base64().as_str())
        && head.content_length().and_then(|len| u64::try_from(len).ok()) == Some(checksum.len())
        && object.metadata.iter().all(has)
        && attributes.storage_class.as_deref().map_or(BY_DEFAULT.contains(&class), |wanted| wanted == class)
        && attributes.sse.as_deref().is_none_or(|wanted| Some(wanted) == sse)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use aws_sdk_s3::operation::head_object::builders::HeadObjectOutputBuilder;
    use aws_sdk_s3::types::ServerSideEncryption;

    use super::*;
    use crate::template::ObjectKey;

    #[test]
    fn an_object_is_known_by_its_bytes_its_metadata_and_how_it_is_stored() {
        let checksum = Crc64Nvme::of(&["bytes".into()]);
        let metadata = [("mtime", "1700000000"), ("sftp-path", "/out/a")];
        let object = NewObject {
            key: ObjectKey::new("a".to_owned()).expect("a key"),
            content_type: "text/csv".to_owned(),
            metadata: metadata.map(|(name, value)| (name, value.to_owned())).to_vec(),
        };
        let plain = ObjectAttributes::default();
        let special = ObjectAttributes {
            sse: Some("aws:kms".to_owned()),
            storage_class: Some("STANDARD_IA".to_owned()),
            ..ObjectAttributes::default()
        };
        let stated: HashMap<_, _> = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let there = HeadObjectOutput::builder()
            .checksum_crc64_nvme(checksum.to_base64())
            .content_length(5)
            .set_metadata(Some(stated.clone()));
        assert!(is_it(&there.clone().build(), &object, checksum, &plain));
        let older = stated.into_iter().chain([("mtime".to_owned(), "1600000000".to_owned())]).collect();
        for other in [
            there.clone().checksum_crc64_nvme(Crc64Nvme::EMPTY.to_base64()),
            there.clone().content_length(6),
            there.clone().set_metadata(Some(older)),
            there.clone().set_metadata(None),
            there.clone().storage_class(StorageClass::DeepArchive),
        ] {
            assert!(!is_it(&other.build(), &object, checksum, &plain));
        }

        let as_wanted = |there: HeadObjectOutputBuilder| is_it(&there.build(), &object, checksum, &special);
        let encrypted = there.clone().server_side_encryption(ServerSideEncryption::AwsKms);
        let rarely_read = there.clone().storage_class(StorageClass::StandardIa);
        assert!(!as_wanted(there) && !as_wanted(encrypted.clone()) && !as_wanted(rarely_read));
        assert!(as_wanted(encrypted.storage_class(StorageClass::StandardIa)));
    }
}
