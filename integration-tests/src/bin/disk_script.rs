//! Does to one file what its arguments say, the way the journal does it (std and rustix), so that the tests of the
//! power-loss shim try the very calls that it has to catch.
//!
//! `disk_script FILE STEP…` with the steps `write:OFFSET:TEXT`, `append:TEXT`, `gather:OFFSET:TEXT,TEXT,…`, `sync`,
//! `truncate:SIZE`, `allocate:SIZE`, `reopen`, `rename:FILE`, `show` (prints the whole content), `size`, `clock` (prints the day, counted
//! from 1970), `die` (SIGKILL). A `try:` before a step prints whether it succeeded, and goes on.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use rustix::fs::FallocateFlags;
use rustix::process::{Signal, getpid, kill_process};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut path = PathBuf::from(arguments.next().context("which file?")?);
    let mut file = open(&path)?;
    for step in arguments {
        match step.strip_prefix("try:") {
            None => take(&step, &mut file, &mut path)?,
            Some(step) => match take(step, &mut file, &mut path) {
                Ok(()) => println!("done"),
                Err(error) => println!("{error}"),
            },
        }
    }
    Ok(())
}

fn take(step: &str, file: &mut File, path: &mut PathBuf) -> Result<()> {
    let parts: Vec<&str> = step.splitn(3, ':').collect();
    match parts.as_slice() {
        ["write", offset, text] => file.write_all_at(text.as_bytes(), offset.parse()?)?,
        ["append", text] => {
            OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())?
        }
        ["gather", offset, texts] => gather(file, offset.parse()?, texts)?,
        ["sync"] => rustix::fs::fdatasync(&*file)?,
        ["truncate", size] => file.set_len(size.parse()?)?,
        ["allocate", size] => {
            rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, size.parse()?)?
        }
        ["reopen"] => *file = open(path)?,
        ["rename", to] => {
            std::fs::rename(&*path, to)?;
            *path = PathBuf::from(to);
        }
        ["show"] => println!("{}", std::fs::read_to_string(path)?.replace('\0', ".")),
        ["size"] => println!("{}", file.metadata()?.len()),
        ["clock"] => println!("{}", UNIX_EPOCH.elapsed()?.as_secs() / 86_400),
        ["die"] => kill_process(getpid(), Signal::KILL)?,
        _ => bail!("no such step: {step}"),
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?)
}

fn gather(file: &File, offset: u64, texts: &str) -> Result<()> {
    let parts: Vec<IoSlice<'_>> =
        texts.split(',').map(|text| IoSlice::new(text.as_bytes())).collect();
    let written = rustix::io::pwritev(file, &parts, offset)?;
    anyhow::ensure!(written == texts.len() - (parts.len() - 1), "short write");
    Ok(())
}
