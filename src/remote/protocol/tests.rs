use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A packet as a server would send it.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
    packet.push(kind);
    packet.extend_from_slice(body);
    packet
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// All messages of a stream that arrives in the given chunks; data put together, since its pieces follow the chunks.
fn read_all<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Message>, Malformed> {
    let mut framer = Framer::default();
    let mut messages = Vec::new();
    for chunk in chunks {
        framer.push(Bytes::copy_from_slice(chunk));
        while let Some(message) = framer.next_message()? {
            messages.push(match message {
                Message::Reply { id, reply: Reply::Data(pieces) } => {
                    assert!(pieces.iter().all(|piece| !piece.is_empty()), "an empty piece of data");
                    let data = Bytes::from(pieces.concat());
                    Message::Reply { id, reply: Reply::Data(vec![data]) }
                }
                other => other,
            });
        }
    }
    Ok(messages)
}

fn read_one(packet: &[u8]) -> Result<Message, Malformed> {
    read_all([packet]).map(|mut messages| {
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    })
}

/// What a server makes of a request: type, id, string, numbers.
fn parse_request(packet: &[u8]) -> (u8, u32, Vec<u8>, Vec<u8>) {
    let mut packet = packet;
    assert_eq!(packet.get_u32() as usize, packet.len());
    let (kind, id, len) = (packet.get_u8(), packet.get_u32(), packet.get_u32() as usize);
    (kind, id, packet[..len].to_vec(), packet[len..].to_vec())
}

#[test]
fn init_asks_for_version_3() {
    assert_eq!(init(), &[0, 0, 0, 5, 1, 0, 0, 0, 3][..]);
}

#[test]
fn requests_are_laid_out_as_the_draft_says() {
    let path = b"/caf\xe9";
    let cases = [
        (Request::Open { path }, 3, &[0, 0, 0, 1, 0, 0, 0, 0][..]),
        (Request::Close { handle: path }, 4, &[]),
        (Request::Read { handle: path, offset: 1 << 32, len: 9 }, 5, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]),
        (Request::FStat { handle: path }, 8, &[]),
        (Request::OpenDir { path }, 11, &[]),
        (Request::ReadDir { handle: path }, 12, &[]),
        (Request::RealPath { path }, 16, &[]),
        (Request::Stat { path }, 17, &[]),
        (Request::ReadLink { path }, 19, &[]),
    ];
    for (request, kind, tail) in cases {
        assert_eq!(parse_request(&request.encode(7)), (kind, 7, path.to_vec(), tail.to_vec()), "{request:?}");
    }
    assert_eq!(parse_request(&Request::Limits.encode(1)), (200, 1, b"limits@openssh.com".to_vec(), vec![]));
}

#[test]
fn the_version_comes_with_its_extensions() {
    let body = [&3u32.to_be_bytes()[..], &string(b"limits@openssh.com"), &string(b"1")].concat();
    let extensions = vec![(Bytes::from("limits@openssh.com"), Bytes::from("1"))];
    assert_eq!(read_one(&framed(2, &body)), Ok(Message::Version { version: 3, extensions }));
}

#[test]
fn a_status_without_a_message_is_still_a_status() {
    let reply = read_one(&framed(101, &[0, 0, 0, 9, 0, 0, 0, 4]));
    assert_eq!(reply, Ok(Message::Reply { id: 9, reply: Reply::Status { code: 4, message: Bytes::new() } }));
}

#[test]
fn a_handle_may_hold_any_bytes() {
    let body = [&[0, 0, 0, 1][..], &string(b"\x00\x00\x00\x80")].concat();
    let handle = Bytes::from_static(b"\x00\x00\x00\x80");
    assert_eq!(read_one(&framed(102, &body)), Ok(Message::Reply { id: 1, reply: Reply::Handle(handle) }));
}

#[test]
fn attributes_are_read_whichever_are_there_and_extended_ones_passed_over() {
    let extended = [&[0, 0, 0, 1][..], &string(b"acl@x"), &string(b"data")].concat();
    let cases: [(u32, Vec<u8>, Attributes); 5] = [
        (0, vec![], Attributes::default()),
        (1, 5u64.to_be_bytes().to_vec(), Attributes { size: Some(5), ..Attributes::default() }),
        (4, 0o040_755u32.to_be_bytes().to_vec(), Attributes { kind: FileKind::Directory, ..Attributes::default() }),
        (8, [1u32.to_be_bytes(), 2u32.to_be_bytes()].concat(), Attributes { mtime: Some(2), ..Attributes::default() }),
        (
            0x8000_000f,
            [&7u64.to_be_bytes()[..], &[0; 8], &0o100_644u32.to_be_bytes(), &[0; 4], &3u32.to_be_bytes(), &extended]
                .concat(),
            Attributes { size: Some(7), mtime: Some(3), kind: FileKind::File },
        ),
    ];
    for (flags, rest, attributes) in cases {
        let body = [&[0, 0, 0, 1][..], &flags.to_be_bytes(), &rest].concat();
        let reply = read_one(&framed(105, &body));
        assert_eq!(reply, Ok(Message::Reply { id: 1, reply: Reply::Attributes(attributes) }), "{flags:x}");
    }
}

#[test]
fn permissions_tell_the_kind_of_file() {
    let kinds = [
        (0o100_644, FileKind::File),
        (0o040_755, FileKind::Directory),
        (0o120_777, FileKind::Symlink),
        (0o010_644, FileKind::Special),
        (0o000_644, FileKind::Unknown),
    ];
    for (permissions, kind) in kinds {
        assert_eq!(file_kind(permissions), kind, "{permissions:o}");
    }
}

#[test]
fn what_is_not_sftp_is_refused_before_it_is_waited_for() {
    assert_eq!(read_all([&b"This account is currently not available."[..]]), Err(Malformed::TooLong(0x5468_6973)));
    assert_eq!(read_all([&[0, 0, 0, 0][..]]), Err(Malformed::Empty));
    assert_eq!(read_all([&[0, 0, 0, 5, 3, 0, 0, 0, 1][..]]), Err(Malformed::UnknownType(3)));
    assert_eq!(read_all([&framed(103, &[0, 0, 0, 1, 0, 0, 0, 9, 1])[..]]), Err(Malformed::CutShort("data")));
    assert_eq!(read_all([&framed(102, &[0, 0, 0, 1, 255, 255, 255, 255])[..]]), Err(Malformed::CutShort("handle")));
}

#[test]
fn a_count_of_names_that_is_a_lie_ends_with_the_packet() {
    let Ok(Message::Reply { reply: Reply::Names(names), .. }) =
        read_one(&framed(104, &[0, 0, 0, 1, 255, 255, 255, 255]))
    else {
        panic!("names")
    };
    let mut seen = 0;
    assert_eq!(names.each(|_, _| seen += 1), Err(Malformed::CutShort("names")));
    assert_eq!(seen, 0);
}

#[test]
fn limits_are_four_numbers() {
    let body: Vec<u8> = (1..=4u64).flat_map(u64::to_be_bytes).collect();
    let limits = Limits { max_packet_len: 1, max_read_len: 2, max_write_len: 3, max_open_handles: 4 };
    assert_eq!(Limits::decode(body.clone().into()), Ok(limits));
    assert_eq!(Limits::decode(body[..31].to_vec().into()), Err(Malformed::CutShort("limits")));
}

#[test]
fn file_data_is_not_copied() {
    let data = vec![7; 60_000];
    let packet = Bytes::from(framed(103, &[&[0, 0, 0, 1][..], &string(&data)].concat()));
    let mut framer = Framer::default();
    framer.push(packet.slice(..30_000));
    assert_eq!(framer.next_message(), Ok(None));
    framer.push(packet.slice(30_000..));
    let Ok(Some(Message::Reply { reply: Reply::Data(pieces), .. })) = framer.next_message() else { panic!("data") };
    let inside = packet.as_ptr_range();
    assert!(pieces.len() == 2 && pieces.iter().all(|piece| inside.contains(&piece.as_ptr())), "{}", pieces.len());
    assert_eq!(pieces.concat(), data);
}

#[test]
fn a_few_bytes_do_not_hold_on_to_the_packet_they_came_in() {
    let packet = Bytes::from(framed(103, &[&[0, 0, 0, 1][..], &string(b"tiny")].concat()));
    let mut framer = Framer::default();
    framer.push(packet.clone());
    let Ok(Some(Message::Reply { reply: Reply::Data(pieces), .. })) = framer.next_message() else { panic!("data") };
    assert!(!packet.as_ptr_range().contains(&pieces[0].as_ptr()));
    assert_eq!(pieces.concat(), b"tiny");
}

#[test]
fn data_does_not_hold_on_to_what_a_server_puts_around_it() {
    let data = vec![7; 20_000];
    // Behind the data in its own packet, and in a packet of its own in the same chunk.
    let behind = framed(103, &[&[0, 0, 0, 1][..], &string(&data), &[0; 30_000]].concat());
    let beside = [framed(103, &[&[0, 0, 0, 1][..], &string(&data)].concat()), framed(201, &[0; 30_000])].concat();
    for stream in [behind, beside] {
        let stream = Bytes::from(stream);
        let mut framer = Framer::default();
        framer.push(stream.clone());
        let Ok(Some(Message::Reply { reply: Reply::Data(pieces), .. })) = framer.next_message() else { panic!("data") };
        assert!(!stream.as_ptr_range().contains(&pieces[0].as_ptr()));
        assert_eq!(pieces.concat(), data);
    }
}

/// Packets of every type a server sends, well-formed or nearly.
fn server_packet() -> impl Strategy<Value = Vec<u8>> {
    let text = || vec(any::<u8>(), 0..40).prop_map(|bytes| string(&bytes));
    let attributes = (any::<u64>(), any::<u32>())
        .prop_map(|(size, mode)| [&5u32.to_be_bytes()[..], &size.to_be_bytes(), &mode.to_be_bytes()].concat());
    let names =
        vec((text(), text(), attributes.clone()).prop_map(|(a, b, c)| [a, b, c].concat()), 0..4).prop_map(|names| {
            let count = u32::try_from(names.len()).unwrap().to_be_bytes().to_vec();
            [count, names.concat()].concat()
        });
    let body = prop_oneof![
        (any::<u32>(), text()).prop_map(|(code, text)| (101, [code.to_be_bytes().to_vec(), text].concat())),
        text().prop_map(|handle| (102, handle)),
        vec(any::<u8>(), 0..6000).prop_map(|data| (103, string(&data))),
        names.prop_map(|names| (104, names)),
        attributes.prop_map(|attributes| (105, attributes)),
        text().prop_map(|extended| (201, extended)),
    ];
    (any::<u32>(), body).prop_map(|(id, (kind, body))| framed(kind, &[id.to_be_bytes().to_vec(), body].concat()))
}

proptest! {
    #[test]
    fn no_bytes_panic(stream in vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>()) {
        let (a, b) = stream.split_at(cut.index(stream.len() + 1));
        if let Ok(messages) = read_all([a, b]) {
            for message in messages {
                if let Message::Reply { reply: Reply::Names(names), .. } = message {
                    let _ = names.each(|_, _| {});
                }
            }
        }
    }

    #[test]
    fn no_body_of_any_type_panics(kind in prop_oneof![Just(2u8), 101u8..=105, Just(201), any::<u8>()], body in vec(any::<u8>(), 0..80)) {
        if let Ok(messages) = read_all([&framed(kind, &body)[..]]) {
            for message in messages {
                if let Message::Reply { reply: Reply::Names(names), .. } = message {
                    let _ = names.each(|_, _| {});
                }
            }
        }
        let _ = Limits::decode(body.into());
    }

    #[test]
    fn how_a_stream_is_cut_changes_nothing(packets in vec(server_packet(), 1..6), cuts in vec(any::<prop::sample::Index>(), 0..12)) {
        let stream = packets.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let whole = read_all([&stream[..]]).unwrap();
        prop_assert_eq!(whole.len(), packets.len());
        prop_assert_eq!(read_all(cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]])), Ok(whole.clone()));
        prop_assert_eq!(read_all(stream.chunks(1)), Ok(whole));
    }

    #[test]
    fn a_server_reads_what_was_asked(id in any::<u32>(), path in vec(any::<u8>(), 0..300), offset in any::<u64>(), len in any::<u32>()) {
        let read = Request::Read { handle: &path, offset, len }.encode(id);
        let tail = [&offset.to_be_bytes()[..], &len.to_be_bytes()].concat();
        prop_assert_eq!(parse_request(&read), (5, id, path.clone(), tail));
        prop_assert_eq!(parse_request(&Request::Stat { path: &path }.encode(id)), (17, id, path, vec![]));
    }

    #[test]
    fn names_come_back_as_they_were_sent(names in vec((vec(any::<u8>(), 0..60), any::<u64>()), 0..20)) {
        let mut body = 1u32.to_be_bytes().to_vec();
        body.extend(u32::try_from(names.len()).unwrap().to_be_bytes());
        for (name, size) in &names {
            body.extend([string(name), string(b"-rw-r--r-- 1 root root"), vec![0, 0, 0, 1], size.to_be_bytes().to_vec()].concat());
        }
        let Ok(Message::Reply { reply: Reply::Names(read), .. }) = read_one(&framed(104, &body)) else { panic!("names") };
        let mut seen = Vec::new();
        prop_assert_eq!(read.each(|name, attributes| seen.push((name.to_vec(), attributes.size.unwrap()))), Ok(()));
        prop_assert_eq!(seen, names);
    }
}
