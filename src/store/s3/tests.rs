//! The shorter way and the SDK's send the same request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use bytes::Bytes;

use super::*;
use crate::store::streamed;
use crate::template::ObjectKey;
use crate::units::ByteSize;

/// Takes every request to its last byte, and says that all is well.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Recorded>>>);

#[derive(Debug, Clone, PartialEq)]
struct Recorded {
    host_and_path: String,
    headers: BTreeMap<String, String>,
    /// Day, region and service of the signature.
    scope: String,
    body: Bytes,
}

/// What tells the time, the client or the attempt, and what follows from it.
const NOT_COMPARED: [&str; 7] = [
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "host",
    "user-agent",
    "x-amz-date",
    "x-amz-user-agent",
];

impl HttpConnector for Recorder {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let recorded = self.0.clone();
        HttpConnectorFuture::new(async move {
            let url = request.uri().split('?').next().unwrap_or_default().to_owned();
            let authorization = request.headers().get("authorization").unwrap_or_default();
            let scope = authorization.split_once("Credential=").map_or("", |(_, rest)| rest);
            let scope = scope.split(',').next().unwrap_or_default().to_owned();
            let headers = request.headers().iter();
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let headers = headers.filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str())).collect();
            let body = aws_sdk_s3::primitives::ByteStream::new(request.into_body()).collect().await;
            let body = body.expect("a whole body").into_bytes();
            recorded.lock().unwrap().push(Recorded { host_and_path: url, headers, scope, body });
            let upload = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
            Ok(HttpResponse::new(StatusCode::try_from(200).unwrap(), upload.into()))
        })
    }
}

#[derive(Default)]
struct Case {
    bucket: &'static str,
    endpoint: Option<&'static str>,
    fips: bool,
    dual_stack: bool,
    attributes: ObjectAttributes,
}

fn cases() -> Vec<Case> {
    let tags = vec![("team".to_owned(), "a&b".to_owned()), ("k y".to_owned(), String::new())];
    let attributes = ObjectAttributes {
        sse: Some("aws:kms".to_owned()),
        kms_key_id: Some("alias/files".to_owned()),
        storage_class: Some("STANDARD_IA".to_owned()),
        tags,
    };
    let plain = |bucket| Case { bucket, ..Case::default() };
    vec![
        plain("files"),
        plain("with.dots"),
        plain("arn:aws:s3:eu-central-1:123456789012:accesspoint/mine"),
        Case { attributes, ..plain("files") },
        Case { fips: true, ..plain("files") },
        Case { dual_stack: true, ..plain("files") },
        Case { fips: true, dual_stack: true, ..plain("files") },
        Case { endpoint: Some("http://127.0.0.1:9000"), ..plain("files") },
        Case { endpoint: Some("https://s3.example.com/below/"), ..plain("with.dots") },
    ]
}

impl Case {
    fn store(&self, recorder: &Recorder, max_attempts: u32) -> S3Store {
        self.store_over(SharedHttpConnector::new(recorder.clone()), max_attempts)
    }

    fn store_over(&self, connector: SharedHttpConnector, max_attempts: u32) -> S3Store {
        let mut sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(aws_config::Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::for_tests_with_session_token()))
            .use_fips(self.fips)
            .use_dual_stack(self.dual_stack);
        sdk.set_endpoint_url(self.endpoint.map(str::to_owned));
        let settings = UploadSettings {
            multipart_threshold: ByteSize(100 << 20),
            part_size: ByteSize(16 << 20),
            concurrency: 4.try_into().expect("not zero"),
            path_style: None,
            attributes: self.attributes.clone(),
        };
        S3Store::over(super::Connections(connector), &sdk.build(), self.bucket.to_owned(), &settings, max_attempts)
    }
}

fn object() -> NewObject {
    NewObject {
        key: ObjectKey::new("a b/\u{e9}+&=@:,~.csv".to_owned()).expect("a key"),
        content_type: "text/csv".to_owned(),
        metadata: vec![("mtime", "1700000000".to_owned()), ("sftp-path", "/out/a%20b.csv".to_owned())],
    }
}

fn some_bytes() -> Vec<Bytes> {
    vec![Bytes::from_static(b"some bytes, "), Bytes::from(vec![7; 3 << 20])]
}

fn streamed_body() -> Body {
    let pieces = some_bytes();
    let (mut feeder, body) = streamed(pieces.iter().map(|piece| piece.len() as u64).sum());
    tokio::spawn(async move {
        for piece in pieces {
            assert!(feeder.send(piece).await);
        }
        feeder.finish();
    });
    Body::Streamed(body)
}

/// The request of the shorter way, and the SDK's.
async fn both(case: &Case, body: impl Fn() -> Body) -> [Recorded; 2] {
    let recorder = Recorder::default();
    // A single attempt leaves none for the SDK after the shorter way, so that there is none.
    for max_attempts in [5, 1] {
        let store = case.store(&recorder, max_attempts);
        assert_eq!(store.direct.is_some(), max_attempts > 1, "{}", case.bucket);
        store.prove();
        store.put(&object(), body()).await.expect("stored");
    }
    let recorded = recorder.0.lock().unwrap().clone();
    recorded.try_into().expect("one request each")
}

#[tokio::test]
async fn an_object_at_hand_is_put_as_the_sdk_does() {
    for case in cases() {
        let [short, long] = both(&case, || Body::buffered(some_bytes())).await;
        assert_eq!(short, long);
    }
}

/// The data of a body in the form `aws-chunked`, and its trailer. Signatures of chunks are passed over.
fn decoded(mut body: &[u8]) -> (Vec<u8>, String) {
    let mut data = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("a chunk's head");
        let head = std::str::from_utf8(&body[..end]).expect("a chunk's head is text");
        let len = usize::from_str_radix(head.split(';').next().unwrap_or_default(), 16).expect("a chunk's length");
        body = &body[end + 2..];
        if len == 0 {
            return (data, String::from_utf8(body.to_vec()).expect("a trailer is text"));
        }
        data.extend_from_slice(&body[..len]);
        body = body[len..].strip_prefix(b"\r\n").expect("a chunk's end");
    }
}

#[tokio::test]
async fn a_streamed_object_is_put_as_the_sdk_does() {
    for case in cases() {
        let [short, long] = both(&case, streamed_body).await;
        let over_tls = case.endpoint.is_none_or(|endpoint| endpoint.starts_with("https:"));
        assert_eq!((&short.host_and_path, &short.scope), (&long.host_and_path, &long.scope));
        for (name, value) in &long.headers {
            match name.as_str() {
                // The SDK has more chunks, and signs them where there is no TLS.
                "content-length" => {}
                "x-amz-content-sha256" if !over_tls => {}
                _ => assert_eq!(short.headers.get(name), Some(value), "{name}"),
            }
        }
        assert_eq!(short.headers.len(), long.headers.len());
        assert_eq!(short.headers["content-length"], short.body.len().to_string());
        let [(data, trailer), (same, as_well)] = [decoded(&short.body), decoded(&long.body)];
        assert_eq!(Bytes::from(data), some_bytes().concat());
        assert_eq!(Bytes::from(same), some_bytes().concat());
        assert!(!over_tls || trailer == as_well, "{trailer:?} {as_well:?}");
        assert!(as_well.starts_with(trailer.trim_end()), "{trailer:?} {as_well:?}");
    }
}

#[tokio::test]
async fn an_upload_in_parts_begins_with_what_an_object_is_stored_with() {
    for case in cases() {
        let [put, _] = both(&case, || Body::buffered(some_bytes())).await;
        let recorder = Recorder::default();
        case.store(&recorder, 5).begin(&object()).await.expect("begun");
        let begun = recorder.0.lock().unwrap()[0].clone();
        let of_the_object = |name: &String| {
            let of_the_body = ["content-length", trailed::CHECKSUM_HEADER, "x-amz-content-sha256"];
            !of_the_body.contains(&name.as_str())
        };
        for (name, value) in put.headers.iter().filter(|(name, _)| of_the_object(name)) {
            assert_eq!(begun.headers.get(name), Some(value), "{name}");
        }
    }
}

#[tokio::test]
async fn a_directory_bucket_is_left_to_the_sdk() {
    let case = Case { bucket: "files--euc1-az1--x-s3", ..Case::default() };
    assert!(case.store(&Recorder::default(), 5).direct.is_none());
}

/// A store that misbehaves in one way.
#[derive(Debug, Clone, Copy)]
enum Misbehaving {
    /// It takes no byte of a body, and answers nothing.
    Stalls,
    /// It takes a body to its end, and answers after so long.
    AnswersAfter(Duration),
    /// It answers with this status.
    Says(u16),
    /// It takes a body to its end and has the object then, and closes the connection: its answer is lost.
    StoresAndCloses,
    /// It has the object of a run before this one, and completes no upload.
    HoldsAndSays(u16),
}

/// Counts the requests of either way, as their user agents tell them apart.
#[derive(Debug, Clone)]
struct Counter {
    behaviour: Misbehaving,
    short: Arc<Mutex<usize>>,
    long: Arc<Mutex<usize>>,
    /// The checksum of the object that it has.
    held: Arc<Mutex<Option<Crc64Nvme>>>,
    /// What else it says of it.
    object: NewObject,
    aborted: Arc<Mutex<usize>>,
}

impl Counter {
    fn new(behaviour: Misbehaving) -> Self {
        let held = matches!(behaviour, Misbehaving::HoldsAndSays(_)).then(|| Crc64Nvme::of(&some_bytes()));
        Self {
            behaviour,
            short: Arc::default(),
            long: Arc::default(),
            held: Arc::new(Mutex::new(held)),
            object: object(),
            aborted: Arc::default(),
        }
    }

    fn seen(&self) -> (usize, usize) {
        (*self.short.lock().unwrap(), *self.long.lock().unwrap())
    }

    fn store(&self, max_attempts: u32) -> S3Store {
        let plain = Case { bucket: "files", ..Case::default() };
        plain.store_over(SharedHttpConnector::new(self.clone()), max_attempts)
    }
}

impl HttpConnector for Counter {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move {
            let ours = request.headers().get("user-agent").is_some_and(|agent| agent.starts_with("sftp-s3-connector/"));
            *if ours { &this.short } else { &this.long }.lock().unwrap() += 1;
            match (request.method(), *this.held.lock().unwrap()) {
                ("HEAD", Some(checksum)) => return Ok(holding(checksum, &this.object)),
                ("DELETE", _) => {
                    *this.aborted.lock().unwrap() += 1;
                    return Ok(HttpResponse::new(StatusCode::try_from(204).unwrap(), "".into()));
                }
                _ => {}
            }
            let status = match this.behaviour {
                Misbehaving::Stalls => std::future::pending().await,
                Misbehaving::AnswersAfter(pause) => {
                    let body = aws_sdk_s3::primitives::ByteStream::new(request.into_body()).collect().await;
                    body.expect("a whole body");
                    tokio::time::sleep(pause).await;
                    200
                }
                Misbehaving::Says(status) | Misbehaving::HoldsAndSays(status) => status,
                Misbehaving::StoresAndCloses => {
                    let body = aws_sdk_s3::primitives::ByteStream::new(request.into_body()).collect().await;
                    if body.is_ok_and(|body| !body.into_bytes().is_empty()) {
                        *this.held.lock().unwrap() = Some(Crc64Nvme::of(&some_bytes()));
                    }
                    return Err(ConnectorError::io("closed".into()));
                }
            };
            Ok(HttpResponse::new(StatusCode::try_from(status).unwrap(), "".into()))
        })
    }
}

/// The answer to who asks for the object.
fn holding(checksum: Crc64Nvme, object: &NewObject) -> HttpResponse {
    let mut response = HttpResponse::new(StatusCode::try_from(200).unwrap(), "".into());
    let headers = response.headers_mut();
    headers.insert(trailed::CHECKSUM_HEADER, checksum.to_base64());
    headers.insert("content-length", checksum.len().to_string());
    for (name, value) in &object.metadata {
        headers.insert(format!("x-amz-meta-{name}"), value.clone());
    }
    response
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_answer_is_lost_is_looked_up() {
    for proven in [false, true] {
        for body in [streamed_body(), Body::buffered(some_bytes())] {
            let store = Counter::new(Misbehaving::StoresAndCloses).store(2);
            if proven {
                store.prove();
            }
            store.put(&object(), body).await.expect("it is there");
        }
        let store = Counter::new(Misbehaving::StoresAndCloses).store(2);
        if proven {
            store.prove();
        }
        let (mut feeder, body) = streamed(1 << 20);
        tokio::spawn(async move {
            feeder.send(Bytes::from_static(b"a piece")).await;
            feeder.break_off().await;
        });
        store.put(&object(), Body::Streamed(body)).await.expect_err("not all of it was sent");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_has_a_streamed_body_and_is_silent_is_given_up() {
    let silence = limit::ANSWER * 10;
    for proven in [false, true] {
        let store = Counter::new(Misbehaving::AnswersAfter(silence)).store(2);
        if proven {
            store.prove();
        }
        let begun = tokio::time::Instant::now();
        let error = store.put(&object(), streamed_body()).await.expect_err("it is silent");
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        // Whether the object is there is asked, and not answered either.
        assert!(begun.elapsed() < silence, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_not_known_to_be_complete_is_aborted_where_its_object_was_there_before() {
    let counter = Counter::new(Misbehaving::HoldsAndSays(503));
    let (object, id) = (object(), UploadId("1".to_owned()));
    let upload = Upload { object: &object, id: &id };
    counter.store(2).complete(&upload, &[], Crc64Nvme::of(&some_bytes())).await.expect("the bytes are there");
    assert_eq!(*counter.aborted.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_object_of_the_same_bytes_that_was_there_before_is_not_the_one_that_was_sent() {
    let mut counter = Counter::new(Misbehaving::HoldsAndSays(503));
    counter.object.metadata[0].1 = "1600000000".to_owned();
    let store = counter.store(2);
    for proven in [false, true] {
        if proven {
            store.prove();
        }
        for body in [streamed_body(), Body::buffered(some_bytes())] {
            let error = store.put(&object(), body).await.expect_err("it is of another time");
            assert_eq!(error.kind, Kind::Unavailable, "{error}");
        }
    }
    let (object, id) = (object(), UploadId("1".to_owned()));
    let upload = Upload { object: &object, id: &id };
    let error = store.complete(&upload, &[], Crc64Nvme::of(&some_bytes())).await.expect_err("as well");
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_streamed_object_that_is_refused_is_not_looked_up_and_may_be_put_again() {
    let counter = Counter::new(Misbehaving::HoldsAndSays(403));
    let store = counter.store(2);
    store.prove();
    let error = store.put(&object(), streamed_body()).await.expect_err("refused, whatever is there");
    assert!(error.may_pass(), "{error}");
    assert_eq!(counter.seen(), (1, 0));
    let error = store.put(&object(), streamed_body()).await.expect_err("refused, by the SDK");
    assert_eq!(error.kind, Kind::Denied, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_byte_of_a_streamed_body_is_given_up_and_the_sdk_goes_on() {
    let counter = Counter::new(Misbehaving::Stalls);
    let store = counter.store(2);
    store.prove();
    let begun = tokio::time::Instant::now();
    let error = store.put(&object(), streamed_into_nothing()).await.expect_err("nothing is taken");
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!((limit::STALLED_FOR..limit::STALLED_FOR * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(counter.seen(), (1, 0));
    assert!(!store.direct.as_ref().is_some_and(Direct::takes_streams), "the next one goes to the SDK");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_byte_of_a_large_body_is_given_up_long_before_its_time_is_over() {
    let counter = Counter::new(Misbehaving::Stalls);
    let body = Body::buffered(vec![Bytes::from(vec![7; 16 << 20])]);
    assert!(Limit::of(&body).attempt() > Some(limit::STALLED_FOR * 4));
    let store = counter.store(2);
    let direct = store.direct.as_ref().expect("a shorter way");
    let identity = direct.identity().await.expect("credentials");
    let Body::Buffered { pieces, checksum } = body else { unreachable!("it was made so") };
    let begun = tokio::time::Instant::now();
    let limits = (limit::STALLED_FOR * 9, limit::STALLED_FOR);
    assert_eq!(direct.put(&identity, &object(), &pieces, checksum, limits).await, Err(NotStored::Busy));
    assert!(begun.elapsed() < limit::STALLED_FOR * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_thinks_over_a_whole_body_is_waited_for() {
    let counter = Counter::new(Misbehaving::AnswersAfter(limit::STALLED_FOR + Duration::from_secs(20)));
    let store = counter.store(2);
    store.prove();
    store.put(&object(), streamed_body()).await.expect("stored");
    assert_eq!(counter.seen(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_closes_the_shorter_way_and_attempts_are_no_more_than_allowed() {
    let counter = Counter::new(Misbehaving::Says(403));
    let store = counter.store(3);
    for _ in 0..5 {
        let error = store.put(&object(), Body::buffered(some_bytes())).await.expect_err("refused");
        assert_eq!(error.kind, Kind::Denied, "{error}");
    }
    assert_eq!(counter.seen(), (1, 5), "once the shorter way, and what is refused is not tried again");

    let counter = Counter::new(Misbehaving::Says(503));
    let store = counter.store(3);
    let error = store.put(&object(), Body::buffered(some_bytes())).await.expect_err("busy");
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    let (short, long) = counter.seen();
    // Whether the object is there is asked too, as many times.
    assert_eq!((short, long), (1, 2 + 3));
}

#[tokio::test]
async fn a_streamed_object_goes_the_shorter_way_only_once_the_store_has_taken_something() {
    let recorder = Recorder::default();
    let store = Case { bucket: "files", ..Case::default() }.store(&recorder, 5);
    assert!(!store.direct.as_ref().is_some_and(Direct::takes_streams));
    store.put(&object(), Body::buffered(some_bytes())).await.expect("stored");
    assert!(store.direct.as_ref().is_some_and(Direct::takes_streams));
}

/// A streamed body whose feeder outlives the request.
fn streamed_into_nothing() -> Body {
    let (mut feeder, body) = streamed(1 << 20);
    tokio::spawn(async move {
        feeder.send(Bytes::from_static(b"a piece")).await;
        std::future::pending::<()>().await;
    });
    Body::Streamed(body)
}
