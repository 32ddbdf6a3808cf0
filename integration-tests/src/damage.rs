//! Disks that go bad while nobody looks: a bit turned in what a journal had synced. Knows as much of the journal's format as is needed to
//! tell that from what a crash may have torn (docs/storage.md).

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Everything in a segment stands at a multiple of this.
const BLOCK: usize = 512;
const SEGMENT_MAGIC: &[u8] = b"BWsegmnt";
const GROUP_MAGIC: &[u8] = b"BWgr";
const GROUP_HEAD_BYTES: usize = 64;
const ENTRY_BYTES: usize = 56;
/// The kind of an entry that is a batch as its leader encoded it.
const BATCH: u8 = 1;

/// Which of the batches of the newest segment is hit: these are all looked at when a broker starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The last that is known to be synced.
    Newest,
    Any,
}

/// Turns a bit of a batch that lies synced in the newest segment of a journal, whose broker is not running. `draw` says which bit. Says
/// where; nothing when there is no such batch yet.
pub fn turn_a_bit(data: &Path, which: Which, draw: u64) -> Result<Option<String>> {
    let Some((path, bytes)) = newest_segment(data)? else { return Ok(None) };
    let batches = synced_batches(&bytes);
    let hit = match which {
        Which::Newest => batches.last(),
        Which::Any => batches.get(draw as usize % batches.len().max(1)),
    };
    let Some(&(begin, length)) = hit else { return Ok(None) };
    let at = begin + (draw >> 16) as usize % length;
    let turned = bytes[at] ^ (1 << (draw % 8));
    std::fs::OpenOptions::new().write(true).open(&path)?.write_all_at(&[turned], at as u64)?;
    let name = path.file_name().context("a segment has a name")?.to_string_lossy().into_owned();
    Ok(Some(format!("{name} at {at}, in a batch of {length} bytes from {begin} on")))
}

/// The one in use: that with the highest number in its head.
fn newest_segment(data: &Path) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let mut newest: Option<(u32, PathBuf)> = None;
    for entry in std::fs::read_dir(data)? {
        let path = entry?.path();
        let is_segment =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"));
        if !is_segment {
            continue;
        }
        let mut head = [0; BLOCK];
        let file = std::fs::File::open(&path)?;
        if file.read_exact_at(&mut head, 0).is_err() || !head.starts_with(SEGMENT_MAGIC) {
            continue;
        }
        let number = u32::from_be_bytes(array(&head, 32));
        if newest.as_ref().is_none_or(|(highest, _)| number > *highest) {
            newest = Some((number, path));
        }
    }
    let Some((_, path)) = newest else { return Ok(None) };
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Some((path, bytes)))
}

/// Where the batches stand of which a later head says that they are synced, and how long they are.
fn synced_batches(segment: &[u8]) -> Vec<(usize, usize)> {
    let nonce: [u8; 16] = array(segment, 40);
    let (mut at, mut synced, mut batches) = (BLOCK, 0, Vec::new());
    while let Some(group) = Group::read(segment, at, &nonce) {
        synced = group.synced;
        let mut payload = at + GROUP_HEAD_BYTES + group.entries * ENTRY_BYTES;
        for entry in 0..group.entries {
            let line = at + GROUP_HEAD_BYTES + entry * ENTRY_BYTES;
            let length = u32::from_be_bytes(array(segment, line + 4)) as usize;
            if segment[line] == BATCH && length > 0 {
                batches.push((payload, length));
            }
            payload += length;
        }
        at += group.length;
    }
    batches.retain(|(begin, length)| begin + length <= synced);
    batches
}

struct Group {
    synced: usize,
    entries: usize,
    length: usize,
}

impl Group {
    /// The group whose head stands there, if a whole one of this use of the segment does.
    fn read(segment: &[u8], at: usize, nonce: &[u8; 16]) -> Option<Group> {
        let head = segment.get(at..at + GROUP_HEAD_BYTES)?;
        let number = |at: usize| u64::from_be_bytes(array(head, at)) as usize;
        let crc = u32::from_be_bytes(array(head, 4));
        let is_whole = head.starts_with(GROUP_MAGIC)
            && crc == crc32c::crc32c(&head[8..])
            && head[8..24] == nonce[..]
            && number(24) == at;
        if !is_whole {
            return None;
        }
        let entries = u32::from_be_bytes(array(head, 44)) as usize;
        let framing = 2 * (GROUP_HEAD_BYTES + entries * ENTRY_BYTES);
        let length = (framing + number(48)).next_multiple_of(BLOCK);
        (at + length <= segment.len()).then_some(Group { synced: number(32), entries, length })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

/// How often a broker's log says that something is damaged.
pub fn reports(log: &str) -> usize {
    log.matches("is damaged").count()
}

/// An error when nothing new was said of damage since there were `before` reports.
pub fn ensure_reported(log: &str, before: usize) -> Result<()> {
    ensure!(reports(log) > before, "its log says nothing of damage");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 16] = [7; 16];

    fn group(position: usize, synced: usize, batch: &[u8]) -> Vec<u8> {
        let mut entry = vec![0; ENTRY_BYTES];
        entry[0] = BATCH;
        entry[4..8].copy_from_slice(&(batch.len() as u32).to_be_bytes());
        let directory = if batch.is_empty() { Vec::new() } else { entry };
        let mut head = vec![0; GROUP_HEAD_BYTES];
        head[..4].copy_from_slice(GROUP_MAGIC);
        head[8..24].copy_from_slice(&NONCE);
        head[24..32].copy_from_slice(&(position as u64).to_be_bytes());
        head[32..40].copy_from_slice(&(synced as u64).to_be_bytes());
        head[44..48].copy_from_slice(&u32::from(!batch.is_empty()).to_be_bytes());
        head[48..56].copy_from_slice(&(batch.len() as u64).to_be_bytes());
        let crc = crc32c::crc32c(&head[8..]);
        head[4..8].copy_from_slice(&crc.to_be_bytes());
        let mut bytes = [head, directory, batch.to_vec()].concat();
        bytes.resize(
            (2 * (GROUP_HEAD_BYTES + ENTRY_BYTES) + batch.len()).next_multiple_of(BLOCK),
            0,
        );
        bytes
    }

    #[test]
    fn a_bit_is_turned_in_the_newest_batch_that_is_known_to_be_synced_and_not_in_a_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut segment = SEGMENT_MAGIC.to_vec();
        segment.resize(BLOCK, 0);
        segment[40..56].copy_from_slice(&NONCE);
        for (synced, batch) in [(512, "first"), (1_024, "second"), (1_536, "not yet")] {
            segment.extend(group(segment.len(), synced, batch.as_bytes()));
        }
        segment.extend(vec![0; 4 * BLOCK]);
        let path = folder.path().join("segment-1");
        std::fs::write(&path, &segment).unwrap();
        for draw in [0, 1 << 16, 70_001, u64::MAX] {
            std::fs::write(&path, &segment).unwrap();
            assert!(turn_a_bit(folder.path(), Which::Newest, draw).unwrap().is_some());
            let after = std::fs::read(&path).unwrap();
            let differ: Vec<usize> =
                (0..segment.len()).filter(|&at| after[at] != segment[at]).collect();
            assert_eq!(differ.len(), 1);
            let second = 1_024 + GROUP_HEAD_BYTES + ENTRY_BYTES;
            assert!((second..second + 6).contains(&differ[0]), "{differ:?}");
        }
    }

    #[test]
    fn where_nothing_is_synced_nothing_is_turned() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(turn_a_bit(folder.path(), Which::Any, 5).unwrap(), None);
    }
}
