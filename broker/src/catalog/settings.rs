//! The settings that hold for the whole cluster, as a document of the coordinator: listed and changed on request.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_coordinator::coordinator::{Coordinator, Document, Write};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{RecordError, SettingsRecord};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use tokio::time::Instant;

use super::Catalog;
use super::queues::{create, raced};
use super::writes::{Decision, REQUEST_FOR};

/// Settings that may stand in the document: more than there are keys, so that none is ever missing, and few enough to be read whole.
const SETTINGS_MAX: usize = 1_000;

impl Catalog {
    /// What is set for the whole cluster, by key.
    ///
    /// # Errors
    /// The coordinator is away, or the document is of a version that this broker cannot read.
    pub async fn cluster_settings(&self) -> Result<BTreeMap<String, String>, ErrorBody> {
        let deadline = Instant::now() + REQUEST_FOR;
        let document = self
            .reading(deadline, |session: Arc<dyn Coordinator>| async move {
                session.sync().await?;
                session.read(&paths::settings()).await
            })
            .await?;
        Ok(record(document.as_ref()).map_err(unreadable)?.settings)
    }

    /// Sets `key` for the whole cluster, or takes it back. Whether it makes sense was judged before.
    ///
    /// # Errors
    /// The coordinator is away, or the document is of a version that this broker cannot read and therefore leaves alone.
    pub async fn change_setting(
        &self,
        key: String,
        value: Option<String>,
    ) -> Result<(), ErrorBody> {
        let deadline = Instant::now() + REQUEST_FOR;
        let next = |session: Arc<dyn Coordinator>| {
            let (key, value) = (key.clone(), value.clone());
            async move {
                // Another broker may have changed it a moment ago: an old document would be taken for one that says so already.
                session.sync().await?;
                let document = session.read(&paths::settings()).await?;
                Ok(step(document.as_ref(), &key, value))
            }
        };
        while let Some(write) = self.reading(deadline, next).await?? {
            let done = |session: Arc<dyn Coordinator>| {
                let next = next(session);
                async move { Ok(matches!(next.await?, Ok(None))) }
            };
            if self.decide(vec![write], deadline, done).await? == Decision::Done {
                tracing::info!(key, value, "a setting of the whole cluster was changed");
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(raced());
            }
        }
        Ok(())
    }
}

fn record(document: Option<&Document>) -> Result<SettingsRecord, RecordError> {
    document.map_or_else(|| Ok(SettingsRecord::default()), |one| SettingsRecord::parse(&one.bytes))
}

/// The write that makes the document say so; none when it does.
fn step(
    present: Option<&Document>,
    key: &str,
    value: Option<String>,
) -> Result<Option<Write>, ErrorBody> {
    let mut record = record(present).map_err(unreadable)?;
    if record.settings.get(key) == value.as_ref() {
        return Ok(None);
    }
    match value {
        Some(value) => drop(record.settings.insert(key.to_owned(), value)),
        None => drop(record.settings.remove(key)),
    }
    if record.settings.len() > SETTINGS_MAX {
        let words = format!(
            "{SETTINGS_MAX} settings are set for the cluster, the most that are allowed; unset some"
        );
        return Err(ErrorBody::not_done(ErrorCode::SettingRefused, words));
    }
    let (path, bytes) = (paths::settings(), record.to_bytes());
    Ok(Some(match present {
        None => create(&path, bytes),
        Some(document) => Write::Set { path, bytes, version: document.version },
    }))
}

fn unreadable(error: RecordError) -> ErrorBody {
    let words = format!("{error}; it is left as it is. Ask a broker of a later version");
    ErrorBody::not_done(ErrorCode::SettingRefused, words)
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::error::Outcome;

    use super::super::doubles::Surroundings;
    use super::*;

    async fn document(world: &Surroundings) -> Option<Document> {
        world.session.sync().await.unwrap();
        world.session.read(&paths::settings()).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_set_for_the_cluster_is_listed_until_it_is_taken_back() {
        let world = Surroundings::new().await;
        let set = |key: &str, value: Option<&str>| {
            world.catalog.change_setting(key.to_owned(), value.map(str::to_owned))
        };
        assert_eq!(world.catalog.cluster_settings().await.unwrap(), BTreeMap::new());
        set("heartbeat", None).await.unwrap();
        assert_eq!(document(&world).await, None, "nothing to take back, nothing written");
        set("heartbeat", Some("20s")).await.unwrap();
        set("log", Some("debug")).await.unwrap();
        set("heartbeat", Some("21s")).await.unwrap();
        set("log", None).await.unwrap();
        let listed: Vec<_> = world.catalog.cluster_settings().await.unwrap().into_iter().collect();
        assert_eq!(listed, [("heartbeat".to_owned(), "21s".to_owned())]);
    }

    /// "Done" was said, and the setting stayed.
    #[tokio::test]
    async fn what_another_broker_has_just_set_is_taken_back_also_where_its_document_is_not_seen_yet()
     {
        let world = Surroundings::new().await;
        let other = Surroundings::beside(world.embedded.clone(), 2, Vec::new()).await;
        world.faults().serve_stale();
        world.catalog.change_setting("log".to_owned(), Some("debug".to_owned())).await.unwrap();
        other.catalog.change_setting("log".to_owned(), None).await.unwrap();
        assert_eq!(world.catalog.cluster_settings().await.unwrap(), BTreeMap::new());
    }

    #[tokio::test]
    async fn what_a_later_version_wrote_beside_the_settings_survives_a_change() {
        let world = Surroundings::new().await;
        let later = br#"{"settings":{"wibble":"1"},"note":{"by":"a later version"}}"#;
        let write = create(&paths::settings(), bytes::Bytes::from_static(later));
        world.session.write(vec![write]).await.unwrap();
        world.catalog.change_setting("log".to_owned(), Some("warn".to_owned())).await.unwrap();
        let text = document(&world).await.unwrap().bytes;
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let whole = serde_json::json!({
            "settings": { "wibble": "1", "log": "warn" }, "note": { "by": "a later version" }
        });
        assert_eq!(json, whole);
    }

    #[tokio::test]
    async fn a_document_that_this_version_cannot_read_is_left_as_it_is() {
        let world = Surroundings::new().await;
        let strange = bytes::Bytes::from_static(br#"{"settings":["another","form"]}"#);
        let write = create(&paths::settings(), strange.clone());
        world.session.write(vec![write]).await.unwrap();
        let change = world.catalog.change_setting("log".to_owned(), Some("warn".to_owned()));
        let error = change.await.unwrap_err();
        assert_eq!((error.code, error.outcome), (ErrorCode::SettingRefused, Outcome::NotDone));
        assert!(error.message.contains("left as it is"), "{}", error.message);
        assert_eq!(document(&world).await.unwrap().bytes, strange);
    }
}
