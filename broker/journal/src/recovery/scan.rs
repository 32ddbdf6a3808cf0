//! Reading a segment group by group: what is whole, what is torn, what is damaged.
//!
//! A group is written only when everything before it is synced. So whatever is bad before a readable group header is
//! damage to synced data; what is bad behind the last one is a write that the crash tore, and was never reported.

use bellwether_log::Batch;
use bytes::Bytes;

use crate::format::{BLOCK, ENTRY_BYTES, EntryHeader, GROUP_HEADER_BYTES, GroupHeader, Nonce};

/// An entry and where its payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub header: EntryHeader,
    pub position: u32,
}

/// Synced bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub position: u64,
    /// What stood there. None: it cannot be told any more, it may have been any queue's.
    pub header: Option<EntryHeader>,
    pub what: String,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub struct Scan {
    pub found: Vec<Found>,
    pub damage: Vec<Damage>,
    /// Behind the last whole group.
    pub end: u64,
}

/// Reads a segment. `synced`: everything before is known to have been synced.
pub fn scan(segment: &Bytes, nonce: &Nonce, synced: u64) -> Scan {
    let mut scan = Scan { end: BLOCK, ..Scan::default() };
    let length = segment.len() as u64;
    let mut position = BLOCK;
    while position < length {
        let Some(next) = take_group(segment, nonce, position, synced, &mut scan) else { break };
        position = next;
        scan.end = next.min(length);
    }
    scan
}

/// Takes the group at `position`; answers where the next begins. `None`: the log ends here.
fn take_group(
    segment: &Bytes,
    nonce: &Nonce,
    position: u64,
    synced: u64,
    scan: &mut Scan,
) -> Option<u64> {
    let Some((header, front_whole)) = find_header(segment, nonce, position) else {
        let next = next_header(segment, nonce, position + BLOCK);
        if next.is_none() && synced <= position {
            return None;
        }
        let what = "neither end of a group is readable".to_owned();
        scan.damage.push(Damage { position, header: None, what });
        return Some(next.unwrap_or(segment.len() as u64));
    };
    let end = position + header.length();
    let (mut found, mut damage) = (Vec::new(), Vec::new());
    match directory(segment, &header) {
        Some(entries) => check_entries(segment, &header, entries, &mut found, &mut damage),
        None => {
            let what = "both copies of a group's directory are unreadable".to_owned();
            damage.push(Damage { position, header: None, what });
        }
    }
    let whole = damage.is_empty() && front_whole;
    let was_synced = || synced > position || next_header(segment, nonce, end).is_some();
    if !whole && !was_synced() {
        return None;
    }
    scan.found.append(&mut found);
    scan.damage.append(&mut damage);
    Some(end)
}

/// The header of the group at `position`, from its front or else from its trailer, and whether it was the front.
fn find_header(segment: &Bytes, nonce: &Nonce, position: u64) -> Option<(GroupHeader, bool)> {
    let length = segment.len() as u64;
    let fits = |header: &GroupHeader| position.saturating_add(header.length()) <= length;
    let front = GroupHeader::decode(&segment[position as usize..], nonce, position);
    if let Some(header) = front.filter(fits) {
        return Some((header, true));
    }
    let mut end = position + BLOCK;
    while end <= length {
        let at = end as usize - GROUP_HEADER_BYTES;
        let trailer = GroupHeader::decode_trailer(&segment[at..end as usize], nonce);
        if let Some(header) = trailer.filter(|header| header.position == position && fits(header)) {
            return Some((header, false));
        }
        if end < length && GroupHeader::decode(&segment[end as usize..], nonce, end).is_some() {
            return None;
        }
        end += BLOCK;
    }
    None
}

/// Where the first readable group at or behind `from` begins.
fn next_header(segment: &Bytes, nonce: &Nonce, from: u64) -> Option<u64> {
    (from..segment.len() as u64)
        .step_by(BLOCK as usize)
        .find(|at| GroupHeader::decode(&segment[*at as usize..], nonce, *at).is_some())
}

/// A group's directory, from whichever copy is whole.
fn directory(segment: &Bytes, header: &GroupHeader) -> Option<Vec<EntryHeader>> {
    let bytes = header.directory_bytes() as usize;
    let first = header.position as usize + GROUP_HEADER_BYTES;
    let second = (header.position + header.length()) as usize - GROUP_HEADER_BYTES - bytes;
    [first, second].into_iter().find_map(|at| {
        let copy = segment.get(at..at + bytes)?;
        if crc32c::crc32c(copy) != header.directory_crc {
            return None;
        }
        let entries = copy.chunks_exact(ENTRY_BYTES).map(EntryHeader::decode);
        let entries: Vec<EntryHeader> = entries.collect::<Option<_>>()?;
        let payloads: u64 = entries.iter().map(|entry| u64::from(entry.length)).sum();
        (payloads == header.payload_bytes).then_some(entries)
    })
}

fn check_entries(
    segment: &Bytes,
    group: &GroupHeader,
    entries: Vec<EntryHeader>,
    found: &mut Vec<Found>,
    damage: &mut Vec<Damage>,
) {
    let mut position = group.position + GROUP_HEADER_BYTES as u64 + group.directory_bytes();
    for header in entries {
        let end = position + u64::from(header.length);
        let payload = segment.slice(position as usize..(end as usize).min(segment.len()));
        match check_payload(&header, payload) {
            Ok(()) => found.push(Found { header, position: position as u32 }),
            Err(what) => damage.push(Damage { position, header: Some(header), what }),
        }
        position = end;
    }
}

/// Whether a payload is what its directory entry says.
pub fn check_payload(header: &EntryHeader, mut payload: Bytes) -> Result<(), String> {
    if header.is_register() {
        let computed = crc32c::crc32c(&payload);
        let whole = payload.len() == header.length as usize && computed == header.crc;
        return whole.then_some(()).ok_or_else(|| "the checksum of a register is wrong".to_owned());
    }
    let batch = Batch::decode(&mut payload).map_err(|error| error.to_string())?;
    let said = (batch.queue(), batch.base(), batch.count());
    if said != (header.queue, header.base, header.count) || !payload.is_empty() {
        return Err(format!("another batch stands there: {batch:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::ids::{Offset, QueueId};
    use proptest::prelude::*;

    use super::*;
    use crate::format::{EntryKind, Stamp, frame_group};

    const NONCE: Nonce = [5; 16];

    fn register(payload: &[u8]) -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Shape,
            record_kind: 0,
            length: payload.len() as u32,
            crc: crc32c::crc32c(payload),
            count: 0,
            queue: QueueId(uuid::Uuid::nil()),
            generation: Stamp(1),
            base: Offset(0),
            version: 1,
        }
    }

    /// A segment with one group for each list of payloads.
    fn segment(groups: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK as usize];
        for payloads in groups {
            let position = bytes.len() as u64;
            let entries: Vec<_> = payloads.iter().map(|payload| register(payload)).collect();
            let length = payloads.iter().map(|payload| payload.len() as u64).sum();
            let (head, tail) = frame_group(NONCE, position, position, &entries, length);
            bytes.extend(head);
            bytes.extend(payloads.concat());
            bytes.extend(tail);
        }
        bytes
    }

    fn groups() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let payload = prop::collection::vec(any::<u8>(), 0..600);
        prop::collection::vec(prop::collection::vec(payload, 0..4), 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: prop::test_runner::RngSeed::Fixed(3), ..ProptestConfig::with_cases(300) })]

        #[test]
        fn what_was_written_is_found(groups in groups()) {
            let bytes = Bytes::from(segment(&groups));
            let scan = scan(&bytes, &NONCE, 0);
            prop_assert_eq!(scan.end, bytes.len() as u64);
            prop_assert!(scan.damage.is_empty());
            let written: Vec<_> = groups.iter().flatten().collect();
            prop_assert_eq!(scan.found.len(), written.len());
            for (found, payload) in scan.found.iter().zip(written) {
                let at = found.position as usize;
                prop_assert_eq!(&bytes[at..at + payload.len()], payload.as_slice());
            }
        }

        #[test]
        fn whatever_is_overwritten_nothing_else_is_found(
            groups in groups(),
            at in any::<prop::sample::Index>(),
            junk in prop::collection::vec(any::<u8>(), 1..1500),
        ) {
            let whole = segment(&groups);
            let before = scan(&Bytes::from(whole.clone()), &NONCE, 0);
            let mut bytes = whole;
            let at = at.index(bytes.len());
            let end = (at + junk.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&junk[..end - at]);
            let after = scan(&Bytes::from(bytes), &NONCE, 0);
            prop_assert!(after.found.iter().all(|found| before.found.contains(found)));
            // All of it is there, or it is said that something is not.
            let short = after.found.len() < before.found.len();
            prop_assert!(!short || !after.damage.is_empty() || after.end < before.end);
        }
    }
}
