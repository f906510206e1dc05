//! What the store holds, by bucket and key, in memory: objects, and uploads under way. An object is the contents of the
//! requests that brought it, in order; to complete an upload writes nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::checksum::Checksum;
use s3s::dto::{CompletedPart, ETag, Metadata};
use s3s::{S3Result, s3_error};

use super::content::Content;

/// What every part but the last one has at least, in S3.
const LEAST_PART: u64 = 5 << 20;

#[derive(Debug, Default)]
pub struct Index {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    /// Names given to uploads.
    uploads: AtomicU64,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Arc<Object>>,
    uploads: BTreeMap<String, Upload>,
}

/// What a client says of an object beside its bytes.
#[derive(Debug, Clone, Default)]
pub struct Description {
    pub metadata: Option<Metadata>,
    pub content_type: Option<String>,
}

#[derive(Debug)]
pub struct Object {
    pub contents: Vec<Content>,
    /// Of the whole object; it knows its length.
    pub checksum: Checksum,
    pub etag: ETag,
    pub modified: SystemTime,
    pub description: Description,
}

impl Object {
    /// There is at least one content.
    pub fn new(contents: Vec<Content>, description: Description) -> Self {
        // One alone is not combined with nothing: that costs as much as all else that is done for a small object.
        let checksum = contents.iter().map(Content::checksum).reduce(Checksum::then).expect("a content");
        let etag = etag(contents.len());
        Self { contents, checksum, etag, modified: SystemTime::now(), description }
    }

    pub fn len(&self) -> u64 {
        self.checksum.len()
    }
}

#[derive(Debug)]
struct Upload {
    key: String,
    description: Description,
    parts: BTreeMap<i32, Part>,
}

#[derive(Debug)]
pub struct Part {
    pub content: Content,
    pub etag: ETag,
}

impl Part {
    pub fn new(content: Content) -> Self {
        Self { content, etag: etag(1) }
    }
}

/// One of its own, and no MD5, as under KMS: a client that takes an ETag for one would spend time to compare it.
fn etag(parts: usize) -> ETag {
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    ETag::Strong(format!("{:032x}-{parts}", GIVEN.fetch_add(1, Ordering::Relaxed)))
}

/// What a completion names and claims.
#[derive(Debug)]
pub struct Completion {
    pub parts: Vec<CompletedPart>,
    /// In base64, where the client sent it.
    pub checksum: Option<String>,
    pub len: Option<i64>,
}

/// A piece of a listing, in the order of keys.
#[derive(Debug, Default)]
pub struct Page {
    pub objects: Vec<(String, Arc<Object>)>,
    pub prefixes: Vec<String>,
    /// Where the next page goes on, if there is more: after this key.
    pub last: Option<String>,
}

impl Index {
    pub fn create_bucket(&self, name: &str) -> S3Result<()> {
        let mut buckets = self.buckets.lock().expect("no thread panics holding it");
        if buckets.contains_key(name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        buckets.insert(name.to_owned(), Bucket::default());
        Ok(())
    }

    /// Its open uploads go with it: their clients do not come back.
    pub fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let removed = {
            let mut buckets = self.buckets.lock().expect("no thread panics holding it");
            let bucket = buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket))?;
            if !bucket.objects.is_empty() {
                return Err(s3_error!(BucketNotEmpty));
            }
            buckets.remove(name)
        };
        // Files are removed while nobody waits for the index.
        drop(removed);
        Ok(())
    }

    /// What `act` returns is dropped without the lock: where it removed files' last names, nobody waits for that.
    fn of<T>(&self, bucket: &str, act: impl FnOnce(&mut Bucket) -> S3Result<T>) -> S3Result<T> {
        let mut buckets = self.buckets.lock().expect("no thread panics holding it");
        act(buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?)
    }

    pub fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        self.of(bucket, |_| Ok(()))
    }

    pub fn put(&self, bucket: &str, key: String, object: Arc<Object>) -> S3Result<()> {
        self.of(bucket, |bucket| Ok(bucket.objects.insert(key, object))).map(drop)
    }

    pub fn get(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        self.of(bucket, |bucket| bucket.objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey)))
    }

    /// Nobody is told where there was no such key, as in S3.
    pub fn remove(&self, bucket: &str, key: &str) -> S3Result<()> {
        self.of(bucket, |bucket| Ok(bucket.objects.remove(key))).map(drop)
    }

    /// Up to `most` keys and prefixes: keys that begin with `prefix` and come after `after`. Where there is a delimiter, those that have
    /// it after the prefix are shown as one, up to the delimiter.
    pub fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: &str,
        most: usize,
    ) -> S3Result<Page> {
        self.of(bucket, |bucket| {
            let mut page = Page::default();
            let mut last = None;
            for (key, object) in bucket.objects.range(prefix.max(after).to_owned()..) {
                let Some(rest) = key.strip_prefix(prefix) else { break };
                if !after.is_empty() && key == after {
                    continue;
                }
                let end = delimiter.and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len()));
                let common = end.map(|end| &key[..prefix.len() + end]);
                if common.is_none() || common != page.prefixes.last().map(String::as_str) {
                    if page.objects.len() + page.prefixes.len() == most {
                        page.last = last;
                        break;
                    }
                    match common {
                        Some(common) => page.prefixes.push(common.to_owned()),
                        None => page.objects.push((key.clone(), Arc::clone(object))),
                    }
                }
                last = Some(key.clone());
            }
            Ok(page)
        })
    }

    /// Returns the upload's id.
    pub fn begin(&self, bucket: &str, key: String, description: Description) -> S3Result<String> {
        let id = format!("upload-{}", self.uploads.fetch_add(1, Ordering::Relaxed));
        let upload = Upload { key, description, parts: BTreeMap::new() };
        self.of(bucket, |bucket| Ok(bucket.uploads.insert(id.clone(), upload)))?;
        Ok(id)
    }

    /// Takes the place of one with the same number, as in S3.
    pub fn add_part(&self, bucket: &str, key: &str, id: &str, number: i32, part: Part) -> S3Result<()> {
        self.of(bucket, |bucket| Ok(bucket.upload(key, id)?.parts.insert(number, part))).map(drop)
    }

    /// Makes the object out of the parts that are named. An upload that cannot be completed stays.
    pub fn complete(&self, bucket: &str, key: &str, id: &str, completion: &Completion) -> S3Result<Arc<Object>> {
        let (object, _replaced, _upload) = self.of(bucket, |bucket| {
            let object = Arc::new(bucket.upload(key, id)?.assemble(completion)?);
            let replaced = bucket.objects.insert(key.to_owned(), Arc::clone(&object));
            Ok((object, replaced, bucket.uploads.remove(id)))
        })?;
        Ok(object)
    }

    pub fn abort(&self, bucket: &str, key: &str, id: &str) -> S3Result<()> {
        self.of(bucket, |bucket| {
            bucket.upload(key, id)?;
            Ok(bucket.uploads.remove(id))
        })
        .map(drop)
    }
}

impl Bucket {
    fn upload(&mut self, key: &str, id: &str) -> S3Result<&mut Upload> {
        self.uploads.get_mut(id).filter(|upload| upload.key == key).ok_or_else(|| s3_error!(NoSuchUpload))
    }
}

impl Upload {
    fn assemble(&self, completion: &Completion) -> S3Result<Object> {
        let named = &completion.parts;
        if named.is_empty() || !named.is_sorted_by(|one, next| one.part_number < next.part_number) {
            return Err(s3_error!(InvalidPartOrder));
        }
        let mut contents = Vec::with_capacity(named.len());
        for (place, named) in named.iter().enumerate() {
            let part = named.part_number.and_then(|number| self.parts.get(&number));
            let part = part.filter(|part| named.e_tag.as_ref() == Some(&part.etag));
            let part = part.ok_or_else(|| s3_error!(InvalidPart))?;
            let checksum = part.content.checksum();
            if named.checksum_crc64nvme.as_ref().is_some_and(|said| *said != checksum.to_base64()) {
                return Err(s3_error!(InvalidPart, "its checksum is {}", checksum.to_base64()));
            }
            if place + 1 < completion.parts.len() && checksum.len() < LEAST_PART {
                return Err(s3_error!(EntityTooSmall));
            }
            contents.push(part.content.clone());
        }
        let object = Object::new(contents, self.description.clone());
        if completion.len.is_some_and(|said| said != object.len() as i64) {
            return Err(s3_error!(InvalidRequest, "the object has {} bytes", object.len()));
        }
        if completion.checksum.as_ref().is_some_and(|said| *said != object.checksum.to_base64()) {
            return Err(s3_error!(BadDigest, "the object's checksum is {}", object.checksum.to_base64()));
        }
        Ok(object)
    }
}
