//! Whose folder it is.

use std::sync::Arc;

use bellwether_log::RecordKind;
use bellwether_protocol::ids::{BrokerId, ClusterId};
use uuid::Uuid;

use super::story::{BROKER, Story, config, queue};
use crate::disk::Disk;
use crate::disk::crash::CrashDisk;
use crate::format::{
    BLOCK, ENTRY_BYTES, EntryHeader, GROUP_HEADER_BYTES, GroupHeader, SegmentHeader, frame_group,
};
use crate::{Journal, JournalConfig, OpenError};

fn open(disk: &CrashDisk, broker: BrokerId) -> Result<Journal, OpenError> {
    Journal::open_on(Arc::new(disk.clone()), config(), broker).map(|(journal, _)| journal)
}

#[test]
fn a_store_id_is_minted_when_the_folder_is_empty_and_kept() {
    let disk = CrashDisk::default();
    let minted = open(&disk, BROKER).unwrap().folder().id();
    assert_eq!(open(&disk.image(0), BROKER).unwrap().folder().id(), minted);
    assert_ne!(open(&CrashDisk::default(), BROKER).unwrap().folder().id(), minted);
}

#[test]
fn a_folder_of_another_broker_is_refused_naming_both() {
    let disk = CrashDisk::default();
    open(&disk, BrokerId(1)).unwrap();
    let Err(error) = open(&disk, BrokerId(7)) else { panic!("it was opened") };
    assert!(error.to_string().contains("belongs to broker 1, this is broker 7"), "{error}");
}

#[test]
fn a_folder_claimed_for_a_cluster_is_refused_to_another() {
    let disk = CrashDisk::default();
    let (ours, other) = (ClusterId(Uuid::from_u128(1)), ClusterId(Uuid::from_u128(2)));
    let folder = open(&disk, BROKER).unwrap().folder();
    assert_eq!(folder.cluster(), None);
    folder.claim(ours).unwrap();
    folder.claim(ours).unwrap();
    let folder = open(&disk.image(0), BROKER).unwrap().folder();
    assert_eq!(folder.cluster(), Some(ours));
    let error = folder.claim(other).unwrap_err().to_string();
    assert!(error.contains(&ours.to_string()) && error.contains(&other.to_string()), "{error}");
}

#[test]
fn a_folder_written_by_a_newer_version_is_refused_naming_both_formats() {
    let disk = CrashDisk::default();
    let file = disk.create("store.json").unwrap();
    let newer = br#"{"format": 9, "something": "else"}"#;
    file.write_at(&[std::io::IoSlice::new(newer)], 0).unwrap();
    let Err(error) = open(&disk, BROKER) else { panic!("it was opened") };
    assert!(error.to_string().contains("format 9"), "{error}");
    assert!(error.to_string().contains("up to 1"), "{error}");
}

/// A broker that went back a version must not take what the later one wrote for damage: damaged copies are thrown away.
#[test]
fn a_record_of_a_later_version_stops_the_journal_and_condemns_nothing() {
    let (queue, later) = (queue(1), RecordKind::NEWEST + 1);
    let mut story = Story::begin();
    story.logs.create(queue);
    story.publish(queue, 1, "of this version");
    story.settle_down(queue);
    story.stop();
    let disk = story.disk.restarted();
    let name = disk.names().unwrap().into_iter().find(|name| name.starts_with("segment")).unwrap();
    let bytes = disk.content(&name);
    let retold = with_record_kind(bytes, RecordKind::Enqueue as u8, later);
    disk.open(&name).unwrap().write_at(&[std::io::IoSlice::new(&retold)], 0).unwrap();
    let Err(error) = open(&disk, BROKER) else { panic!("it was opened") };
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    let (error, found) = (error.to_string(), format!("in format {later}"));
    assert!(error.contains("a record of queue") && error.contains(&found), "{error}");
}

/// The groups of a segment with another kind of record, their checksums right: as a later version would have written them.
fn with_record_kind(mut bytes: Vec<u8>, from: u8, to: u8) -> Vec<u8> {
    let nonce = SegmentHeader::decode(&bytes).unwrap().nonce;
    let mut position = BLOCK as usize;
    while let Some(group) = GroupHeader::decode(&bytes[position..], &nonce, position as u64) {
        let directory = position + GROUP_HEADER_BYTES;
        let entries: Vec<EntryHeader> = bytes[directory..][..group.directory_bytes() as usize]
            .chunks_exact(ENTRY_BYTES)
            .map(|line| EntryHeader::decode(line).unwrap())
            .map(|entry| EntryHeader {
                record_kind: if entry.record_kind == from { to } else { entry.record_kind },
                ..entry
            })
            .collect();
        let (head, tail) =
            frame_group(nonce, group.position, group.synced, &entries, group.payload_bytes);
        let end = position + group.length() as usize;
        bytes[position..position + head.len()].copy_from_slice(&head);
        bytes[end - tail.len()..end].copy_from_slice(&tail);
        position = end;
        if position >= bytes.len() {
            break;
        }
    }
    bytes
}

#[test]
fn segments_without_an_identity_are_not_taken_for_an_empty_folder() {
    let mut story = Story::begin();
    story.stop();
    story.disk.remove("store.json").unwrap();
    assert!(matches!(open(&story.disk, BROKER), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_read_only_folder_is_refused() {
    let mut story = Story::begin();
    story.stop();
    story.disk.make_read_only();
    assert!(matches!(open(&story.disk, BROKER), Err(OpenError::ReadOnly { .. })));
}

#[test]
fn a_folder_in_use_is_refused_naming_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig::new(dir.path());
    let (journal, _) = Journal::open(config.clone(), BROKER).unwrap();
    let Err(error) = Journal::open(config.clone(), BROKER) else { panic!("it was opened") };
    let holder = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    drop(journal);
    Journal::open(config, BROKER).unwrap();
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { segment_bytes: 1024, ..JournalConfig::new(dir.path()) };
    assert!(matches!(Journal::open(config, BROKER), Err(OpenError::Config(_))));
}
