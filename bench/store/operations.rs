//! The operations of S3 that the bench's clients ask for. What arrives is held against its CRC64NVME, as S3 does, where the
//! request has one; of conditions, versions and the like there is nothing.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, TrailingHeaders, s3_error};

use super::content::{self, Content, Folder};
use super::index::{self, Completion, Description, Index, Page, Part};

const CHECKSUM: &str = "x-amz-checksum-crc64nvme";
/// What a page of a listing holds at most.
const PAGE: i32 = 1000;
/// What a listing does not encode where it encodes: RFC 3986's unreserved characters, and the one that folders are made of.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

pub struct Store {
    folder: Folder,
    index: Index,
}

type Answer<T> = S3Result<S3Response<T>>;

fn answer<T>(output: T) -> Answer<T> {
    Ok(S3Response::new(output))
}

impl Store {
    /// Keeps its files in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder: Folder::new(folder), index: Index::default() }
    }

    /// Keeps the body if it is what the request says that it is.
    async fn receive(
        &self,
        body: Option<StreamingBlob>,
        checksum: Option<String>,
        headers: &HeaderMap,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<Content> {
        let body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
        let content = self.folder.keep(body).await?;
        let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
        let len = headers.get("x-amz-decoded-content-length").and_then(text);
        if len.is_some_and(|len| len != content.checksum().len().to_string()) {
            return Err(s3_error!(IncompleteBody));
        }
        let trailers = trailers.and_then(|trailers| trailers.take());
        let said = checksum.or_else(|| text(trailers?.get(CHECKSUM)?));
        let is_owed = headers.get("x-amz-trailer").is_some_and(|names| names == CHECKSUM);
        match said {
            Some(said) if said == content.checksum().to_base64() => Ok(content),
            None if !is_owed => Ok(content),
            _ => Err(s3_error!(BadDigest, "what arrived has the checksum {}", content.checksum().to_base64())),
        }
    }

    fn page(&self, input: &ListObjectsV2Input, most: i32) -> S3Result<Page> {
        let after = input.continuation_token.as_deref().or(input.start_after.as_deref()).unwrap_or_default();
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        self.index.list(&input.bucket, prefix, delimiter, after, usize::try_from(most).unwrap_or_default())
    }
}

fn whole_object() -> Option<ChecksumType> {
    Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT))
}

/// The object's checksum, where the client asks for it.
fn asked(mode: Option<&ChecksumMode>, object: &index::Object) -> Option<String> {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED).then(|| object.checksum.to_base64())
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        self.index.create_bucket(&request.input.bucket)?;
        answer(CreateBucketOutput::default())
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
        self.index.delete_bucket(&request.input.bucket)?;
        answer(DeleteBucketOutput {})
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.index.check_bucket(&request.input.bucket)?;
        answer(HeadBucketOutput::default())
    }

    async fn get_bucket_location(&self, request: S3Request<GetBucketLocationInput>) -> Answer<GetBucketLocationOutput> {
        self.index.check_bucket(&request.input.bucket)?;
        answer(GetBucketLocationOutput::default())
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let input = request.input;
        let content =
            self.receive(input.body, input.checksum_crc64nvme, &request.headers, request.trailing_headers).await?;
        let description = Description { metadata: input.metadata, content_type: input.content_type };
        let object = Arc::new(index::Object::new(vec![content], description));
        self.index.put(&input.bucket, input.key, Arc::clone(&object))?;
        answer(PutObjectOutput {
            e_tag: Some(object.etag.clone()),
            checksum_crc64nvme: Some(object.checksum.to_base64()),
            checksum_type: whole_object(),
            ..PutObjectOutput::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let input = request.input;
        let description = Description { metadata: input.metadata, content_type: input.content_type };
        let id = self.index.begin(&input.bucket, input.key.clone(), description)?;
        answer(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let input = request.input;
        let content =
            self.receive(input.body, input.checksum_crc64nvme, &request.headers, request.trailing_headers).await?;
        let part = Part::new(content);
        let output = UploadPartOutput {
            e_tag: Some(part.etag.clone()),
            checksum_crc64nvme: Some(part.content.checksum().to_base64()),
            ..UploadPartOutput::default()
        };
        self.index.add_part(&input.bucket, &input.key, &input.upload_id, input.part_number, part)?;
        answer(output)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let input = request.input;
        let completion = Completion {
            parts: input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default(),
            checksum: input.checksum_crc64nvme,
            len: input.mpu_object_size,
        };
        let object = self.index.complete(&input.bucket, &input.key, &input.upload_id, &completion)?;
        answer(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(object.etag.clone()),
            checksum_crc64nvme: Some(object.checksum.to_base64()),
            checksum_type: whole_object(),
            ..CompleteMultipartUploadOutput::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let input = request.input;
        self.index.abort(&input.bucket, &input.key, &input.upload_id)?;
        answer(AbortMultipartUploadOutput::default())
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let input = request.input;
        let object = self.index.get(&input.bucket, &input.key)?;
        let checksum = asked(input.checksum_mode.as_ref(), &object);
        answer(HeadObjectOutput {
            content_length: Some(object.len() as i64),
            content_type: object.description.content_type.clone(),
            metadata: object.description.metadata.clone(),
            e_tag: Some(object.etag.clone()),
            last_modified: Some(object.modified.into()),
            checksum_type: checksum.as_ref().and_then(|_| whole_object()),
            checksum_crc64nvme: checksum,
            ..HeadObjectOutput::default()
        })
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let input = request.input;
        let object = self.index.get(&input.bucket, &input.key)?;
        let Range { start, end } = match input.range {
            Some(range) => range.check(object.len())?,
            None => 0..object.len(),
        };
        // A range has no checksum of its own.
        let checksum = if input.range.is_none() { asked(input.checksum_mode.as_ref(), &object) } else { None };
        answer(GetObjectOutput {
            body: Some(StreamingBlob::wrap(content::read(&object.contents, start, end))),
            content_length: Some((end - start) as i64),
            content_range: input.range.map(|_| format!("bytes {start}-{}/{}", end.saturating_sub(1), object.len())),
            content_type: object.description.content_type.clone(),
            metadata: object.description.metadata.clone(),
            e_tag: Some(object.etag.clone()),
            last_modified: Some(object.modified.into()),
            checksum_type: checksum.as_ref().and_then(|_| whole_object()),
            checksum_crc64nvme: checksum,
            ..GetObjectOutput::default()
        })
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        self.index.remove(&request.input.bucket, &request.input.key)?;
        answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(&self, request: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        let DeleteObjectsInput { bucket, delete, .. } = request.input;
        let mut deleted = Vec::with_capacity(delete.objects.len());
        for object in delete.objects {
            self.index.remove(&bucket, &object.key)?;
            deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
        }
        answer(DeleteObjectsOutput { deleted: Some(deleted), ..DeleteObjectsOutput::default() })
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        let input = request.input;
        let most = input.max_keys.unwrap_or(PAGE).min(PAGE);
        let page = self.page(&input, most)?;
        let is_encoded = input.encoding_type.as_ref().is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
        let name = |key: &str| {
            if is_encoded { utf8_percent_encode(key, PLAIN).to_string() } else { key.to_owned() }
        };
        let object = |(key, object): &(String, Arc<index::Object>)| Object {
            key: Some(name(key)),
            size: Some(object.len() as i64),
            e_tag: Some(object.etag.clone()),
            last_modified: Some(object.modified.into()),
            ..Object::default()
        };
        let prefix = |prefix: &String| CommonPrefix { prefix: Some(name(prefix)) };
        answer(ListObjectsV2Output {
            contents: Some(page.objects.iter().map(object).collect()),
            common_prefixes: Some(page.prefixes.iter().map(prefix).collect()),
            key_count: Some((page.objects.len() + page.prefixes.len()) as i32),
            max_keys: Some(most),
            is_truncated: Some(page.last.is_some()),
            next_continuation_token: page.last,
            prefix: input.prefix.as_deref().map(name),
            delimiter: input.delimiter.as_deref().map(name),
            start_after: input.start_after.as_deref().map(name),
            continuation_token: input.continuation_token,
            encoding_type: input.encoding_type,
            name: Some(input.bucket),
            ..ListObjectsV2Output::default()
        })
    }

    /// The older one, which rclone asks.
    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        let listed = self.list_objects_v2(request.map_input(Into::into)).await?;
        let is_encoded = listed.output.encoding_type.is_some();
        Ok(listed.map_output(|output| ListObjectsOutput {
            // A token is a key here; other than a token, a marker is encoded like one.
            next_marker: output
                .next_continuation_token
                .map(|key| if is_encoded { utf8_percent_encode(&key, PLAIN).to_string() } else { key }),
            contents: output.contents,
            common_prefixes: output.common_prefixes,
            max_keys: output.max_keys,
            is_truncated: output.is_truncated,
            prefix: output.prefix,
            delimiter: output.delimiter,
            marker: output.start_after,
            encoding_type: output.encoding_type,
            name: output.name,
            ..ListObjectsOutput::default()
        }))
    }
}
