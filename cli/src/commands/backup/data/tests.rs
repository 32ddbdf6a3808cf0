//! A backup is read as it was written, or it is said what is wrong with it.

use std::path::Path;

use bellwether_client::{HeaderValue, Headers};
use bytes::Bytes;
use uuid::Uuid;

use super::format::{Begin, Kept, QueueBegin};
use super::read::{Part, Reader, is_data};
use super::write;
use crate::outcome::Failure;

fn begin() -> Begin {
    Begin {
        backup: Uuid::from_u128(7),
        cluster: "c".into(),
        virtual_host: "/".into(),
        made_at_ms: 1_700_000_000_000,
        version: "0.1.0".into(),
    }
}

fn message(offset: u64) -> Kept {
    let mut headers = Headers::default();
    headers.0.insert("trace".into(), HeaderValue::Text("t-1".into()));
    Kept {
        offset,
        time_ms: 1_700_000_000_000 + offset,
        returns: u32::from(offset == 3),
        redelivered: offset < 4,
        exchange: Bytes::from_static(b"events"),
        routing_key: Bytes::from_static("schlüssel".as_bytes()),
        headers: offset.is_multiple_of(2).then(|| headers.encode().unwrap()),
        body: Bytes::from(vec![offset as u8; offset as usize]),
    }
}

/// Two queues, one of them empty.
fn write_to(path: &Path) -> Vec<Kept> {
    let messages: Vec<Kept> = (1..20).map(message).collect();
    let mut part = write::Part::begin(path, begin()).unwrap();
    part.queue(QueueBegin { name: "orders".into(), id: "o".into(), until: 20 }).unwrap();
    messages.iter().for_each(|message| part.message(message).unwrap());
    assert_eq!(part.end_queue().unwrap().messages, 19);
    part.queue(QueueBegin { name: "empty".into(), id: "e".into(), until: 0 }).unwrap();
    part.end_queue().unwrap();
    assert_eq!(part.finish().unwrap().messages, 19);
    messages
}

fn written() -> (Vec<u8>, Vec<Kept>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    let messages = write_to(&path);
    (std::fs::read(&path).unwrap(), messages)
}

/// All parts, or what is wrong.
fn read(mut bytes: &[u8]) -> Result<Vec<Part>, String> {
    let mut reader = Reader::new(&mut bytes)?;
    let mut parts = Vec::new();
    while let Some(part) = reader.next()? {
        parts.push(part);
    }
    Ok(parts)
}

#[test]
fn what_was_written_is_read_back_with_everything_there_is_to_a_message() {
    let (bytes, messages) = written();
    assert!(is_data(&bytes));
    let parts = read(&bytes).unwrap();
    let [
        Part::Queue(orders),
        Part::Messages(read),
        Part::QueueEnd(end),
        Part::Queue(empty),
        Part::QueueEnd(nothing),
    ] = &parts[..]
    else {
        panic!("{parts:?}");
    };
    assert_eq!((orders.name.as_str(), empty.name.as_str()), ("orders", "empty"));
    assert_eq!(*read, messages);
    assert_eq!((end.messages, end.sha256.len()), (19, 64));
    assert_eq!((nothing.messages, nothing.bytes), (0, 0));
    assert_eq!(*Reader::new(&bytes[..]).unwrap().begin(), begin());
}

#[test]
fn a_backup_that_ends_anywhere_before_its_end_is_found_truncated() {
    let (bytes, _) = written();
    for end in 0..bytes.len() {
        let error = read(&bytes[..end]).unwrap_err();
        let says = if end < 8 { "no backup of data" } else { "truncated" };
        assert!(error.contains(says), "{end}: {error}");
    }
    let error = read(&bytes[..bytes.len() / 2]).unwrap_err();
    assert!(error.contains(&format!("byte {}", bytes.len() / 2)), "{error}");
    assert!(error.contains("queue orders"), "{error}");
}

#[test]
fn a_bit_that_turned_anywhere_is_found() {
    let (bytes, _) = written();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(read(&damaged).is_err(), "at byte {at}");
    }
    let mut more = bytes.clone();
    more.push(0);
    assert!(read(&more).unwrap_err().contains("behind its end"));
}

/// Every frame is sound by itself, and one of them is missing: only the counts and the checksum over all tell.
#[test]
fn a_frame_that_is_missing_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    let mut part = write::Part::begin(&path, begin()).unwrap();
    part.queue(QueueBegin { name: "orders".into(), id: "o".into(), until: 100 }).unwrap();
    let large = |offset| Kept { body: Bytes::from(vec![1; 1 << 20]), ..message(offset) };
    (1..4).for_each(|offset| part.message(&large(offset)).unwrap());
    part.end_queue().unwrap();
    part.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    // Behind magic and format: begin, queue, three frames of messages.
    let mut frames = Vec::new();
    let mut at = 12;
    while at < bytes.len() {
        let length = 8 + u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        frames.push(at..at + length);
        at += length;
    }
    assert_eq!(frames.len(), 7);
    let without = |frame: usize| {
        let range = frames[frame].clone();
        [&bytes[..range.start], &bytes[range.end..]].concat()
    };
    for frame in 0..7 {
        assert!(read(&without(frame)).is_err(), "frame {frame}");
    }
    let error = read(&without(3)).unwrap_err();
    assert!(error.contains("should hold 3 messages") && error.contains("orders"), "{error}");
    let mut swapped = bytes.clone();
    let (first, second) = (frames[2].clone(), frames[3].clone());
    swapped[first.start..second.end].rotate_left(first.len());
    assert!(read(&swapped).unwrap_err().contains("out of place"));
}

#[test]
fn a_backup_of_a_later_format_is_refused_naming_both() {
    let (mut bytes, _) = written();
    bytes[11] = 9;
    let error = read(&bytes).unwrap_err();
    assert!(error.contains("format 9") && error.contains("up to 1"), "{error}");
}

/// A length that announces more than comes costs nothing.
#[test]
fn an_announced_length_makes_no_room_by_itself() {
    let (bytes, _) = written();
    let mut long = bytes[..12].to_vec();
    long.extend_from_slice(&(31_u32 << 20).to_be_bytes());
    long.extend_from_slice(&[0; 8]);
    assert!(read(&long).unwrap_err().contains("truncated"));
    long[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(read(&long).unwrap_err().contains("cannot be"));
}

#[test]
fn the_backup_of_the_first_release_is_still_understood() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/data-format-1.backup");
    let parts = read(&std::fs::read(path).unwrap()).unwrap();
    let (_, messages) = written();
    assert!(matches!(&parts[1], Part::Messages(read) if *read == messages), "{parts:?}");
}

#[test]
fn what_is_not_finished_has_neither_the_name_of_a_backup_nor_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    let names = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut part = write::Part::begin(&path, begin()).unwrap();
    part.queue(QueueBegin { name: "orders".into(), id: "o".into(), until: 9 }).unwrap();
    part.message(&message(1)).unwrap();
    assert_eq!(names(), ["b.part"]);
    let Err(Failure::Usage(words)) = write::Part::begin(&path, begin()) else { panic!("two") };
    assert!(words.contains("another backup"), "{words}");
    drop(part);
    assert_eq!(names(), Vec::<String>::new(), "interrupted");
    // What a killed one left behind is written over.
    std::fs::write(folder.path().join("b.part"), [7; 10_000]).unwrap();
    write_to(&path);
    assert_eq!(names(), ["b"]);
    assert!(read(&std::fs::read(&path).unwrap()).is_ok());
    let Err(Failure::Usage(words)) = write::Part::begin(&path, begin()) else { panic!("over") };
    assert!(words.contains("is there already"), "{words}");
}

#[test]
fn a_backup_that_came_to_its_name_first_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    let part = write::Part::begin(&path, begin()).unwrap();
    std::fs::write(&path, b"first").unwrap();
    assert!(matches!(part.finish(), Err(Failure::Usage(words)) if words.contains("already")));
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
}
