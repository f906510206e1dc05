//! The floor of an upload: a file's bytes into S3 by the AWS SDK as it comes, in parts, four at a time, and nothing else.
//! Arguments: endpoint, bucket, file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use anyhow::Context as _;
use aws_config::BehaviorVersion;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use futures::{StreamExt as _, TryStreamExt as _};

const PART: u64 = 16 << 20;
const KEY: &str = "floor";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let [endpoint, bucket, path] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().ok().context("three arguments")?;
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let config = aws_sdk_s3::config::Builder::from(&config).endpoint_url(endpoint).force_path_style(true).build();
    let client = aws_sdk_s3::Client::from_conf(config);
    let file = Arc::new(File::open(path)?);
    let size = file.metadata()?.len();

    let begun = client.create_multipart_upload().bucket(&bucket).key(KEY);
    let begun =
        begun.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::FullObject).send().await?;
    let id = begun.upload_id().context("an upload id")?;
    let mut parts: Vec<CompletedPart> = futures::stream::iter((0..size.div_ceil(PART)).zip(1..))
        .map(|(index, number)| {
            let (client, bucket, file) = (client.clone(), bucket.clone(), file.clone());
            async move {
                let mut bytes = vec![0; PART.min(size - index * PART) as usize];
                file.read_exact_at(&mut bytes, index * PART)?;
                let request = client.upload_part().bucket(bucket).key(KEY).upload_id(id).part_number(number);
                let request = request.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
                // A floor hashes nothing for its signature; nor does the program.
                let request = request.body(ByteStream::from(bytes)).customize().disable_payload_signing();
                let part = request.send().await?;
                let done = CompletedPart::builder().part_number(number).set_e_tag(part.e_tag().map(str::to_owned));
                anyhow::Ok(done.build())
            }
        })
        .buffer_unordered(4)
        .try_collect()
        .await?;
    parts.sort_by_key(CompletedPart::part_number);
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    client.complete_multipart_upload().bucket(&bucket).key(KEY).upload_id(id).multipart_upload(parts).send().await?;
    Ok(())
}
