//! Whose folder it is.

use std::sync::Arc;

use bellwether_protocol::ids::{BrokerId, ClusterId};
use uuid::Uuid;

use super::story::{BROKER, Story, config};
use crate::disk::Disk;
use crate::disk::crash::CrashDisk;
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
