//! What stands before `s3s-fs`: it refuses what a test wants refused, and gives the store what S3 has and it lacks.
//!
//! `s3s-fs` names files after keys, so that a long key does not fit and `a` excludes `a/b`; it has no
//! ListMultipartUploads, checks no checksum of a multipart object, and keeps an object whose checksum was wrong. Here
//! each key is stored under its hash, uploads are listed, and an object whose CRC64NVME differs does not appear.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crc_fast::{CrcAlgorithm, Digest};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use sha2::Sha256;

/// A request that can be counted and refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    HeadBucket,
    PutObject,
    CreateMultipartUpload,
    UploadPart,
    CompleteMultipartUpload,
    AbortMultipartUpload,
}

/// Requests to refuse. Clones share what they refuse.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<Vec<Refusal>>>);

#[derive(Debug, Clone)]
struct Refusal {
    operation: Operation,
    code: s3s::S3ErrorCode,
    /// How many more of them are let through before.
    after: u64,
    /// How many more of them are refused.
    times: u64,
}

impl Refusals {
    /// Every such request, for want of permission.
    pub fn deny(&self, operation: Operation) -> &Self {
        self.refuse(operation, s3s::S3ErrorCode::AccessDenied, 0, u64::MAX)
    }

    /// `times` such requests after the next `after`, with a fault of the store's own that may pass.
    pub fn fail(&self, operation: Operation, after: u64, times: u64) -> &Self {
        self.refuse(operation, s3s::S3ErrorCode::InternalError, after, times)
    }

    fn refuse(&self, operation: Operation, code: s3s::S3ErrorCode, after: u64, times: u64) -> &Self {
        self.0.lock().unwrap().push(Refusal { operation, code, after, times });
        self
    }

    fn check(&self, operation: Operation) -> S3Result<()> {
        for refusal in self.0.lock().unwrap().iter_mut().filter(|refusal| refusal.operation == operation) {
            if refusal.after > 0 {
                refusal.after -= 1;
            } else if refusal.times > 0 {
                refusal.times -= 1;
                return Err(s3s::S3Error::with_message(refusal.code.clone(), "refused, as the test asked"));
            }
        }
        Ok(())
    }
}

/// The store as the service sees it.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    store: Arc<FileSystem>,
    folder: PathBuf,
    index: Arc<Mutex<Index>>,
    refusals: Refusals,
}

#[derive(Debug, Default)]
struct Index {
    objects: BTreeMap<(String, String), Indexed>,
    /// Bucket and key, by upload.
    uploads: BTreeMap<String, (String, String)>,
    counts: HashMap<Operation, u64>,
}

#[derive(Debug, Clone)]
struct Indexed {
    size: u64,
    crc64nvme: String,
}

impl Gate {
    pub(super) fn new(folder: &Path) -> Result<Self, s3s_fs::Error> {
        Ok(Self {
            store: Arc::new(FileSystem::new(folder)?),
            folder: folder.to_owned(),
            index: Arc::default(),
            refusals: Refusals::default(),
        })
    }

    pub(super) fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    pub(super) fn count(&self, operation: Operation) -> u64 {
        self.index().counts.get(&operation).copied().unwrap_or_default()
    }

    /// The CRC64NVME of what is stored, not of what a client said.
    pub(super) fn checksum(&self, bucket: &str, key: &str) -> Option<String> {
        self.object(bucket, key).ok().map(|indexed| indexed.crc64nvme)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap()
    }

    /// Counts the request, and refuses it where that was asked for.
    fn admit(&self, operation: Operation) -> S3Result<()> {
        *self.index().counts.entry(operation).or_default() += 1;
        self.refusals.check(operation)
    }

    fn require_bucket(&self, bucket: &str) -> S3Result<()> {
        if self.folder.join(bucket).is_dir() { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    fn object(&self, bucket: &str, key: &str) -> S3Result<Indexed> {
        let object = (bucket.to_owned(), key.to_owned());
        self.index().objects.get(&object).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }

    /// Enters the stored file of `key` into the index, provided that its checksum is `expected`, where one is.
    fn commit(&self, bucket: &str, key: &str, expected: Option<&str>) -> S3Result<()> {
        let path = self.folder.join(bucket).join(stored_name(key));
        let (size, crc64nvme) = checksum(&path).map_err(|error| s3_error!(error, InternalError))?;
        if expected.is_some_and(|expected| expected != crc64nvme) {
            self.discard(bucket, key);
            return Err(s3_error!(BadDigest, "the CRC64NVME you specified did not match what was received"));
        }
        let indexed = Indexed { size, crc64nvme };
        self.index().objects.insert((bucket.to_owned(), key.to_owned()), indexed);
        Ok(())
    }

    fn discard(&self, bucket: &str, key: &str) {
        self.index().objects.remove(&(bucket.to_owned(), key.to_owned()));
        // There may have been none.
        let _ = std::fs::remove_file(self.folder.join(bucket).join(stored_name(key)));
    }
}

/// What a key is called on disk: short, flat, and the same every time.
fn stored_name(key: &str) -> String {
    use sha2::Digest;
    Sha256::digest(key.as_bytes()).iter().take(20).map(|byte| format!("{byte:02x}")).collect()
}

/// The file's length and its CRC64NVME as S3 writes it.
fn checksum(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, BASE64_STANDARD.encode(digest.finalize().to_be_bytes()))),
            read => {
                digest.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

#[async_trait::async_trait]
impl S3 for Gate {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.store.create_bucket(req).await
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.admit(Operation::HeadBucket)?;
        self.store.head_bucket(req).await
    }

    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.admit(Operation::PutObject)?;
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        self.require_bucket(&bucket)?;
        req.input.key = stored_name(&key);
        let answer = self.store.put_object(req).await;
        match &answer {
            Ok(_) => self.commit(&bucket, &key, None)?,
            Err(_) => self.discard(&bucket, &key),
        }
        answer
    }

    async fn get_object(&self, mut req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.object(&req.input.bucket, &req.input.key)?;
        req.input.key = stored_name(&req.input.key);
        self.store.get_object(req).await
    }

    async fn head_object(&self, mut req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let indexed = self.object(&req.input.bucket, &req.input.key)?;
        req.input.key = stored_name(&req.input.key);
        let mut answer = self.store.head_object(req).await?;
        answer.output.checksum_crc64nvme = Some(indexed.crc64nvme);
        Ok(answer)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.discard(&req.input.bucket, &req.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        self.require_bucket(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        // The token is the last key of the page before.
        let after = input.continuation_token.or(input.start_after).unwrap_or_default();
        let most = usize::try_from(input.max_keys.unwrap_or(1000)).unwrap_or(0).min(1000);
        let in_url = input.encoding_type.is_some();
        let mut keys: Vec<(String, u64)> = {
            let index = self.index();
            let after_prefix = (input.bucket.clone(), prefix.clone());
            let from_prefix = index.objects.range(after_prefix..);
            let here = from_prefix.take_while(|((bucket, key), _)| *bucket == input.bucket && key.starts_with(&prefix));
            let page = here.filter(|((_, key), _)| *key > after).take(most + 1);
            page.map(|((_, key), indexed)| (key.clone(), indexed.size)).collect()
        };
        let truncated = keys.len() > most;
        keys.truncate(most);
        let next = truncated.then(|| keys.last().map(|(key, _)| key.clone())).flatten();
        let encode = |key: String| match in_url {
            true => utf8_percent_encode(&key, NON_ALPHANUMERIC).to_string(),
            false => key,
        };
        let contents: Vec<Object> = keys
            .into_iter()
            .map(|(key, size)| Object { key: Some(encode(key)), size: Some(size as i64), ..Object::default() })
            .collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            key_count: Some(contents.len() as i32),
            is_truncated: Some(truncated),
            next_continuation_token: next,
            contents: Some(contents),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.admit(Operation::CreateMultipartUpload)?;
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        self.require_bucket(&bucket)?;
        req.input.key = stored_name(&key);
        let mut answer = self.store.create_multipart_upload(req).await?;
        if let Some(upload) = &answer.output.upload_id {
            self.index().uploads.insert(upload.clone(), (bucket, key.clone()));
        }
        answer.output.key = Some(key);
        Ok(answer)
    }

    async fn upload_part(&self, mut req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.admit(Operation::UploadPart)?;
        self.require_upload(&req.input.upload_id)?;
        req.input.key = stored_name(&req.input.key);
        self.store.upload_part(req).await
    }

    async fn complete_multipart_upload(
        &self,
        mut req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.admit(Operation::CompleteMultipartUpload)?;
        let upload = req.input.upload_id.clone();
        self.require_upload(&upload)?;
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let expected = req.input.checksum_crc64nvme.clone();
        req.input.key = stored_name(&key);
        let mut answer = self.store.complete_multipart_upload(req).await?;
        self.index().uploads.remove(&upload);
        self.commit(&bucket, &key, expected.as_deref())?;
        answer.output.key = Some(key);
        Ok(answer)
    }

    async fn abort_multipart_upload(
        &self,
        mut req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.admit(Operation::AbortMultipartUpload)?;
        let upload = req.input.upload_id.clone();
        self.require_upload(&upload)?;
        req.input.key = stored_name(&req.input.key);
        let answer = self.store.abort_multipart_upload(req).await?;
        self.index().uploads.remove(&upload);
        Ok(answer)
    }

    async fn list_parts(&self, mut req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.require_upload(&req.input.upload_id)?;
        req.input.key = stored_name(&req.input.key);
        self.store.list_parts(req).await
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        self.require_bucket(&input.bucket)?;
        let index = self.index();
        let here = index.uploads.iter().filter(|(_, (bucket, _))| *bucket == input.bucket);
        let uploads: Vec<MultipartUpload> = here
            .map(|(upload, (_, key))| MultipartUpload {
                key: Some(key.clone()),
                upload_id: Some(upload.clone()),
                ..MultipartUpload::default()
            })
            .collect();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            is_truncated: Some(false),
            uploads: Some(uploads),
            ..Default::default()
        }))
    }
}

impl Gate {
    fn require_upload(&self, upload: &str) -> S3Result<()> {
        if self.index().uploads.contains_key(upload) { Ok(()) } else { Err(s3_error!(NoSuchUpload)) }
    }
}
