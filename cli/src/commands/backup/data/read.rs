//! Reading a backup: every frame by its checksum, in its order, with the counts that it says. What is wrong is said with the place.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::format::{
    Begin, End, Entry, FORMAT, FRAME_BYTES_MAX, FRAME_PREFIX_BYTES, GATHERED_BYTES, Kept, MAGIC,
    PREFIX_BYTES, QueueBegin, QueueEnd, is_sound,
};
use super::hex;

/// Something of a backup, in its order: a queue, its messages, its end; then the next queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Queue(QueueBegin),
    Messages(Vec<Kept>),
    QueueEnd(QueueEnd),
}

/// A backup that is being read.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes read so far.
    at: u64,
    begin: Begin,
    queue: Option<Queue>,
    read: End,
    ended: bool,
}

/// The queue that is being read.
#[derive(Debug)]
struct Queue {
    begin: QueueBegin,
    read: QueueEnd,
    sha256: Sha256,
    /// Offsets below have come.
    behind: u64,
}

impl Reader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// It is no backup of data, a later format, or damaged at its very beginning.
    pub fn open(path: &Path) -> Result<Reader<BufReader<File>>, String> {
        let named = |why: String| format!("{}: {why}", path.display());
        let file = File::open(path).map_err(|error| named(error.to_string()))?;
        Reader::new(BufReader::with_capacity(GATHERED_BYTES, file)).map_err(named)
    }
}

/// Whether a file begins like a backup of data.
pub fn is_data(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    ///
    /// # Errors
    /// As of [`Reader::open`].
    pub fn new(mut input: R) -> Result<Reader<R>, String> {
        let mut prefix = Vec::with_capacity(PREFIX_BYTES);
        let read = input.by_ref().take(PREFIX_BYTES as u64).read_to_end(&mut prefix);
        read.map_err(|error| error.to_string())?;
        if !is_data(&prefix) {
            return Err("this is no backup of data".to_owned());
        }
        let Some(format) =
            prefix[MAGIC.len()..].first_chunk().map(|four| u32::from_be_bytes(*four))
        else {
            return Err("the file is truncated: it ends before its format".to_owned());
        };
        if format > FORMAT {
            return Err(format!(
                "it was written in format {format}; this version of Bellwether knows formats up to {FORMAT}: restore it with a later version"
            ));
        }
        let begin = Begin {
            backup: uuid::Uuid::nil(),
            cluster: String::new(),
            virtual_host: String::new(),
            made_at_ms: 0,
            version: String::new(),
        };
        let at = PREFIX_BYTES as u64;
        let mut reader =
            Reader { input, at, begin, queue: None, read: End::default(), ended: false };
        match reader.entry()? {
            Entry::Begin(begin) => reader.begin = begin,
            _ => return Err(reader.damaged(at, "it does not say what it is a backup of")),
        }
        Ok(reader)
    }

    /// What it is a backup of.
    pub fn begin(&self) -> &Begin {
        &self.begin
    }

    /// What comes next; `None`: that was all, and it was sound.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub fn next(&mut self) -> Result<Option<Part>, String> {
        if self.ended {
            return Ok(None);
        }
        let at = self.at;
        match self.entry()? {
            Entry::Queue(begin) if self.queue.is_none() => {
                let queue = Queue {
                    begin: begin.clone(),
                    read: QueueEnd::default(),
                    sha256: Sha256::new(),
                    behind: 0,
                };
                self.queue = Some(queue);
                Ok(Some(Part::Queue(begin)))
            }
            Entry::Messages(messages, payload) => {
                let Some(queue) = &mut self.queue else {
                    return Err(self.damaged(at, "messages of no queue"));
                };
                if let Err(why) = queue.take(&messages, &payload) {
                    return Err(self.damaged(at, &why));
                }
                Ok(Some(Part::Messages(messages)))
            }
            Entry::QueueEnd(end) => {
                let Some(read) = self.queue.as_ref().map(Queue::read_so_far) else {
                    return Err(self.damaged(at, "the end of a queue that has not begun"));
                };
                if read != end {
                    let why = format!(
                        "it should hold {} messages with the checksum {}, and holds {} with {}",
                        end.messages, end.sha256, read.messages, read.sha256
                    );
                    return Err(self.damaged(at, &why));
                }
                self.queue = None;
                self.read.queues += 1;
                self.read.messages += end.messages;
                Ok(Some(Part::QueueEnd(end)))
            }
            Entry::End(end) if self.queue.is_none() => {
                if end != self.read {
                    let why = format!(
                        "it says that it holds {} messages of {} queues, and holds {} of {}",
                        end.messages, end.queues, self.read.messages, self.read.queues
                    );
                    return Err(self.damaged(at, &why));
                }
                let mut more = [0];
                if self.input.read(&mut more).map_err(|error| error.to_string())? > 0 {
                    return Err(self.damaged(self.at, "there is something behind its end"));
                }
                self.ended = true;
                Ok(None)
            }
            Entry::Begin(_) | Entry::Queue(_) | Entry::End(_) => {
                Err(self.damaged(at, "a part that does not belong there"))
            }
        }
    }

    /// Reads the rest, for its soundness alone.
    ///
    /// # Errors
    /// As of [`Reader::next`].
    pub fn check(mut self, mut heed: impl FnMut(&Part)) -> Result<End, String> {
        while let Some(part) = self.next()? {
            heed(&part);
        }
        Ok(self.read)
    }

    /// The next frame, whole and as it was written.
    fn entry(&mut self) -> Result<Entry, String> {
        let at = self.at;
        let prefix = self.bytes(FRAME_PREFIX_BYTES, at)?;
        let four = |from: usize| {
            let four = prefix[from..].first_chunk().copied();
            u32::from_be_bytes(four.expect("a prefix of eight bytes was read"))
        };
        let (length, checksum) = (four(0) as usize, four(4));
        if !(1..=FRAME_BYTES_MAX).contains(&length) {
            return Err(self.damaged(at, &format!("a frame of {length} bytes cannot be")));
        }
        let body = self.bytes(length, at)?;
        if !is_sound(checksum, &body) {
            return Err(self.damaged(at, "the checksum of a frame does not match"));
        }
        Entry::of(body).map_err(|why| self.damaged(at, &why))
    }

    /// So many bytes of the frame that begins `at`. Room is made for what comes, not for what is announced.
    fn bytes(&mut self, count: usize, at: u64) -> Result<Bytes, String> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(count as u64).read_to_end(&mut bytes);
        self.at += bytes.len() as u64;
        read.map_err(|error| format!("{error}, at byte {}{}", self.at, self.within()))?;
        if bytes.len() < count {
            return Err(format!(
                "the file is truncated: it ends at byte {}{}, where more of the frame at byte {at} should come",
                self.at,
                self.within()
            ));
        }
        Ok(bytes.into())
    }

    fn damaged(&self, at: u64, what: &str) -> String {
        format!("the file is damaged at byte {at}{}: {what}", self.within())
    }

    /// Where in the backup that is, for people.
    fn within(&self) -> String {
        match &self.queue {
            Some(queue) => {
                format!(" (queue {}, behind {} messages)", queue.begin.name, queue.read.messages)
            }
            None => format!(" (behind {} queues)", self.read.queues),
        }
    }
}

impl Queue {
    fn take(&mut self, messages: &[Kept], payload: &[u8]) -> Result<(), String> {
        self.sha256.update(payload);
        for message in messages {
            if message.offset < self.behind || message.offset >= self.begin.until {
                return Err(format!("a message at offset {} is out of place", message.offset));
            }
            self.behind = message.offset + 1;
            self.read.messages += 1;
            self.read.bytes += message.size();
        }
        Ok(())
    }

    fn read_so_far(&self) -> QueueEnd {
        QueueEnd { sha256: hex(&self.sha256.clone().finalize()), ..self.read.clone() }
    }
}
