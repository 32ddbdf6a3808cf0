//! Backups of data: what waits in a queue is read while its leader dies, and restored while its leader dies, once.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use bellwether_client::{HeaderValue, Headers, Message};
use bellwether_integration_tests::binary::bellwether;
use bellwether_integration_tests::broker::BrokerOptions;
use bellwether_integration_tests::eventually::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::story::{PATIENCE, Story, number};

/// Enough to be in the middle of for a while.
const MESSAGES: u64 = 60_000;
const BODY_BYTES: usize = 1_024;

fn command(story: &Story, arguments: &[&str]) -> Command {
    let mut command = Command::new(bellwether().unwrap());
    command.args(arguments).args(["--json", "--connect", &story.cluster.addresses().join(",")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What it printed, when it did what it was to do.
async fn done(child: Child) -> Value {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn part_of(file: &Path) -> PathBuf {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Numbers, long enough, every tenth with a header.
async fn fill(story: &Story, queue: &str) -> Vec<u64> {
    story.queue(queue).await;
    let producer = story.driver.client().producer().to_queue(queue).start().await.unwrap();
    for number in 0..MESSAGES {
        let mut message = Message::new(format!("{number:0>BODY_BYTES$}"));
        if number.is_multiple_of(10) {
            let mut headers = Headers::default();
            headers.0.insert("number".into(), HeaderValue::UInt(number));
            message = message.with_headers(headers).unwrap();
        }
        drop(producer.send(message).await.unwrap());
    }
    producer.close().await.unwrap();
    (0..MESSAGES).collect()
}

/// Everything there is, in order, with its header checked; nothing is taken.
async fn look(story: &Story, queue: &str) -> Vec<u64> {
    let mut browser = story.driver.client().browse(queue).unwrap();
    let mut seen = Vec::new();
    while let Some(page) = browser.next_page().await.unwrap() {
        for message in page {
            let number = number(message.body());
            let header = message.headers().unwrap().0.get("number").cloned();
            assert_eq!(header, number.is_multiple_of(10).then_some(HeaderValue::UInt(number)));
            seen.push(number);
        }
    }
    seen
}

async fn enqueued(story: &Story, queue: &str) -> u64 {
    story.driver.describe(queue).await.unwrap().counts.enqueued
}

/// A restore that is stopped with some of the messages stored and not all of them. While the disks of the followers stand still nothing is
/// confirmed, and it sends no more than it may have unconfirmed: however slow this test is, it does not get to the end.
async fn restore_in_the_middle(story: &mut Story, queue: &str, arguments: &[&str]) -> Child {
    let seen = story.driver.describe(queue).await.unwrap();
    let appended = async |story: &Story| -> anyhow::Result<u64> {
        Ok(story.driver.client().describe(queue).await?.counts.log_end.0)
    };
    let (end, before) = (appended(story).await.unwrap(), seen.counts.enqueued);
    let leader = story.cluster.leader_of(queue).await.unwrap();
    let followers: Vec<u32> = seen.replicas.into_iter().filter(|id| *id != leader).collect();
    for follower in &followers {
        story.cluster.broker(*follower).disk_stalls().unwrap();
    }
    let restore = command(story, arguments).spawn().unwrap();
    let begun = eventually("the restore to be under way", PATIENCE, async || {
        let now = appended(story).await?;
        anyhow::ensure!(now > end + 1_000, "from {end} to {now}");
        Ok(())
    });
    begun.await.unwrap();
    stop(&restore).await;
    for follower in &followers {
        story.cluster.broker(*follower).disk_is_well().unwrap();
    }
    let some = eventually("what was sent to be stored", PATIENCE, async || {
        let enqueued = enqueued(story, queue).await;
        anyhow::ensure!(enqueued > before, "{enqueued}");
        Ok(enqueued)
    });
    assert!(some.await.unwrap() < before + MESSAGES);
    restore
}

/// A backup that is stopped with some of the messages written and not all of them. One that got to the end before it was stopped is thrown
/// away, and another one made.
async fn backup_in_the_middle(story: &Story, arguments: &[&str], file: &Path) -> Child {
    let caught = eventually("a backup to be stopped in its middle", PATIENCE, async || {
        let mut backup = command(story, arguments).spawn()?;
        let part = part_of(file);
        while std::fs::metadata(&part).map_or(0, |part| part.len()) < 1 << 20 {
            if let Some(status) = backup.try_wait()? {
                anyhow::ensure!(status.success(), "{status}");
                break;
            }
            tokio::task::yield_now().await;
        }
        if backup.try_wait()?.is_none() {
            stop(&backup).await;
            if part.exists() && !file.exists() {
                return Ok(backup);
            }
            signal(&backup, Signal::CONT);
            backup.wait().await?;
        }
        std::fs::remove_file(file)?;
        anyhow::bail!("it was faster than the test")
    });
    caught.await.unwrap()
}

/// From here on it does nothing: a signal that was sent is not yet one that was heeded.
async fn stop(child: &Child) {
    signal(child, Signal::STOP);
    let tasks = format!("/proc/{}/task", child.id().unwrap());
    let stopped = eventually("every thread of it to stand still", PATIENCE, async || {
        for task in std::fs::read_dir(&tasks)? {
            let stat = std::fs::read_to_string(task?.path().join("stat"))?;
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            anyhow::ensure!(matches!(state, Some('T' | 'Z')), "{stat}");
        }
        Ok(())
    });
    stopped.await.unwrap();
}

impl Story {
    async fn with_disks_that_can_be_held() -> Story {
        Story::with(BrokerOptions { slow_disk: true, ..BrokerOptions::default() }).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_backed_up_and_restored_once_while_its_leaders_are_killed() {
    let mut story = Story::with_disks_that_can_be_held().await;
    let all = fill(&story, "orders").await;
    // Held by somebody: that, too, is backed up.
    let mut holds = story.driver.consumer("orders", 100).await.unwrap();
    let held = tokio::time::timeout(PATIENCE, holds.next()).await.unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.backup");
    let named = file.to_str().unwrap();

    let arguments = ["backup", "--data", "--queue", "ord*", named];
    let backup = backup_in_the_middle(&story, &arguments, &file).await;
    assert!(!file.exists(), "what is not whole does not look it");
    let first = story.cluster.kill_leader_of("orders").await.unwrap();
    signal(&backup, Signal::CONT);
    let said = done(backup).await;
    assert_eq!(said["messages"], MESSAGES);
    assert!(file.exists() && !part_of(&file).exists());
    drop(held);
    holds.close().await;
    story.led_by_another("orders", first).await;
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
    assert_eq!(look(&story, "orders").await, all, "nothing was taken");

    // A queue that holds messages is not restored into by accident.
    let output = command(&story, &["restore", "--data", named]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("holds 60,000 messages") && said.contains("--append"), "{said}");

    story.driver.client().purge("orders").await.unwrap();
    let before = enqueued(&story, "orders").await;
    let restore = restore_in_the_middle(&mut story, "orders", &["restore", "--data", named]).await;
    story.cluster.kill_leader_of("orders").await.unwrap();
    signal(&restore, Signal::CONT);
    let said = done(restore).await;
    assert_eq!(
        (&said["resumed"], &said["queues"][0]["verified"]),
        (&false.into(), &"content".into())
    );
    assert_eq!(look(&story, "orders").await, all);
    assert_eq!(enqueued(&story, "orders").await, before + MESSAGES, "and none of them twice");
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_goes_on_and_stores_nothing_twice() {
    let mut story = Story::with_disks_that_can_be_held().await;
    let all = fill(&story, "orders").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.backup");
    let named = file.to_str().unwrap();
    done(command(&story, &["backup", "--data", named]).spawn().unwrap()).await;

    // Interrupted like a backup that somebody has had enough of.
    let other = folder.path().join("other.backup");
    let arguments = ["backup", "--data", other.to_str().unwrap()];
    let mut interrupted = backup_in_the_middle(&story, &arguments, &other).await;
    signal(&interrupted, Signal::INT);
    signal(&interrupted, Signal::CONT);
    let status = tokio::time::timeout(PATIENCE, interrupted.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(!other.exists() && !part_of(&other).exists(), "nothing that looks like a backup");

    story.driver.client().purge("orders").await.unwrap();
    let before = enqueued(&story, "orders").await;
    let mut restore =
        restore_in_the_middle(&mut story, "orders", &["restore", "--data", named]).await;
    restore.kill().await.unwrap();
    let said = done(command(&story, &["restore", "--data", named]).spawn().unwrap()).await;
    assert_eq!(
        (&said["resumed"], &said["queues"][0]["verified"]),
        (&true.into(), &"content".into())
    );
    assert_eq!(enqueued(&story, "orders").await, before + MESSAGES, "none of them twice");
    assert_eq!(look(&story, "orders").await, all);

    // A bit that turned is found before anything is published.
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = folder.path().join("damaged.backup");
    std::fs::write(&damaged, bytes).unwrap();
    let arguments = ["restore", "--data", "--append", damaged.to_str().unwrap()];
    let output = command(&story, &arguments).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("damaged at byte") && said.contains("Nothing was published"), "{said}");
    assert_eq!(enqueued(&story, "orders").await, before + MESSAGES);
}
