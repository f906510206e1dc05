//! The harness's proxy does what it says: a fault that does not happen would let every test behind it pass for nothing.

mod harness;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use harness::proxy::{Plan, Proxy, Toward};
use harness::until;

const DEADLINE: Duration = Duration::from_secs(20);

/// Sends back what it receives, and ends when the other side does.
async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
                to.shutdown().await.ok();
            });
        }
    });
    address
}

async fn echo_behind(plan: impl FnOnce(Plan) -> Plan) -> Proxy {
    plan(Proxy::to(echo_server().await)).start().await
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
}

/// Sends all of it, ends, and returns what comes back and how that ended.
async fn exchange(mut stream: TcpStream, bytes: Vec<u8>) -> (Vec<u8>, std::io::Result<()>) {
    let (mut from, mut to) = stream.split();
    let send = async {
        // Fails where the connection is cut: the reading side tells of it.
        to.write_all(&bytes).await.ok();
        to.shutdown().await.ok();
    };
    let mut received = Vec::new();
    let receive = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(error),
            }
        }
    };
    let ((), ended) = timeout(DEADLINE, async { tokio::join!(send, receive) }).await.expect("the exchange ends");
    (received, ended)
}

/// Bytes in which no place looks like its neighbour.
fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8)) as u8).collect()
}

#[tokio::test]
async fn it_forwards_every_byte_both_ways_and_counts_them() {
    let proxy = echo_behind(|plan| plan).await;
    let bytes = sample(3_000_000);
    let (received, ended) = exchange(connect(&proxy).await, bytes.clone()).await;
    ended.unwrap();
    assert!(received == bytes);
    assert_eq!(proxy.bytes(Toward::Server), 3_000_000);
    assert_eq!(proxy.bytes(Toward::Client), 3_000_000);
    assert_eq!((proxy.connections(), proxy.faults()), (1, 0));
    until("the connection is closed", DEADLINE, async || (proxy.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_round_trip_takes_its_time_and_throughput_stays() {
    let round_trip = Duration::from_millis(200);
    let proxy = echo_behind(|plan| plan.round_trip(round_trip)).await;
    let mut stream = connect(&proxy).await;
    let mut byte = [0];
    stream.write_all(&[1]).await.unwrap();
    stream.read_exact(&mut byte).await.unwrap();

    let start = Instant::now();
    stream.write_all(&[1]).await.unwrap();
    stream.read_exact(&mut byte).await.unwrap();
    let one = start.elapsed();
    assert!(one >= round_trip && one < round_trip * 2, "one byte there and back took {one:?}");

    // 256 MiB are 4096 chunks: a delay for each of them would make them take 400 s, and a timer's tick for each 5 s.
    let bytes = sample(1 << 20).repeat(256);
    let start = Instant::now();
    let (received, ended) = exchange(stream, bytes.clone()).await;
    ended.unwrap();
    assert!(received == bytes);
    let all = start.elapsed();
    assert!(all >= round_trip && all < Duration::from_secs(4), "256 MiB there and back took {all:?}");
}

#[tokio::test]
async fn a_rate_holds_each_connection_back() {
    let proxy = echo_behind(|plan| plan.rate(1_000_000)).await;
    let start = Instant::now();
    let (received, _) = exchange(connect(&proxy).await, sample(500_000)).await;
    assert_eq!(received.len(), 500_000);
    assert!(start.elapsed() >= Duration::from_millis(400), "took {:?}", start.elapsed());
}

#[tokio::test]
async fn it_cuts_after_every_so_many_bytes_and_then_no_more() {
    let proxy = echo_behind(|plan| plan.cut_every(Toward::Client, 100_000, 2)).await;
    for cut in 1..=2 {
        let (received, ended) = exchange(connect(&proxy).await, sample(150_000)).await;
        assert!(received.len() <= 100_000, "{} bytes came through", received.len());
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(proxy.bytes(Toward::Client), cut * 100_000);
        assert_eq!(proxy.faults(), cut);
    }
    let (received, ended) = exchange(connect(&proxy).await, sample(150_000)).await;
    ended.unwrap();
    assert_eq!(received.len(), 150_000);
    assert_eq!(proxy.faults(), 2);
}

#[tokio::test]
async fn a_stalled_connection_is_silent_both_ways_and_stays_open() {
    let proxy = echo_behind(|plan| plan.stall_after(Toward::Client, 1000)).await;
    let mut stream = connect(&proxy).await;
    stream.write_all(&sample(2000)).await.unwrap();
    let mut received = vec![0; 1000];
    timeout(DEADLINE, stream.read_exact(&mut received)).await.expect("bytes before the stall come through").unwrap();
    assert_eq!(received, sample(2000)[..1000]);

    stream.write_all(&[1; 1000]).await.unwrap();
    let more = timeout(Duration::from_millis(300), stream.read(&mut received)).await;
    assert!(more.is_err(), "heard after the stall: {more:?}");
    assert_eq!(proxy.bytes(Toward::Server), 2000);
    assert_eq!((proxy.open(), proxy.faults()), (1, 1));

    let (received, ended) = exchange(connect(&proxy).await, sample(2000)).await;
    ended.unwrap();
    assert_eq!(received.len(), 2000, "another connection is well");
}

#[tokio::test]
async fn it_corrupts_the_one_byte() {
    let proxy = echo_behind(|plan| plan.corrupt(Toward::Server, 70_000)).await;
    let bytes = sample(200_000);
    let (received, ended) = exchange(connect(&proxy).await, bytes.clone()).await;
    ended.unwrap();
    let wrong: Vec<usize> = (0..bytes.len()).filter(|&i| received[i] != bytes[i]).collect();
    assert_eq!(wrong, [70_000]);
    assert_eq!(proxy.faults(), 1);
}

#[tokio::test]
async fn the_earlier_of_two_faults_strikes_first() {
    let proxy = echo_behind(|plan| plan.cut_every(Toward::Server, 2000, 1).stall_after(Toward::Server, 3000)).await;
    let (_, ended) = exchange(connect(&proxy).await, sample(5000)).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!((proxy.bytes(Toward::Server), proxy.faults()), (2000, 1));
}

#[tokio::test]
async fn it_refuses_a_connection_too_many() {
    let proxy = echo_behind(|plan| plan.at_most(1)).await;
    let mut first = connect(&proxy).await;
    first.write_all(&[7]).await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();

    let (received, _) = exchange(connect(&proxy).await, sample(10)).await;
    assert!(received.is_empty());
    assert_eq!((proxy.connections(), proxy.refused(), proxy.most_open()), (1, 1, 1));

    drop(first);
    until("the first connection is closed", DEADLINE, async || (proxy.open() == 0).then_some(())).await;
    let (received, _) = exchange(connect(&proxy).await, sample(10)).await;
    assert_eq!(received, sample(10));
}

#[tokio::test]
async fn a_dropped_proxy_takes_its_connections_along() {
    let proxy = echo_behind(|plan| plan).await;
    let mut stream = connect(&proxy).await;
    stream.write_all(&[7]).await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    let port = proxy.port();
    drop(proxy);
    let end = timeout(DEADLINE, stream.read(&mut byte)).await.expect("the connection ends");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    until("the port is closed", DEADLINE, async || TcpStream::connect(("127.0.0.1", port)).await.err()).await;
}
