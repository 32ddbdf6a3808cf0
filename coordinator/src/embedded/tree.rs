//! The documents of the embedded coordinator: a tree with versions, ephemerals and atomic writes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::coordinator::{Conflict, Document, Path, Version, Write};

/// One session, as the owner of ephemerals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) i64);

/// *Invariant:* every node but the root is in its parent's `children`; an ephemeral has no children.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<Path, Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    bytes: Bytes,
    version: i32,
    owner: Option<SessionId>,
    /// Last segments.
    children: BTreeSet<String>,
}

/// What one step of a write did to one document, as it is told to watchers and kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put { path: Path, bytes: Bytes, version: Version, ephemeral: bool },
    Deleted { path: Path, ephemeral: bool },
}

impl Change {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Change::Put { path, .. } | Change::Deleted { path, .. } => path,
        }
    }
}

/// Step `index` was refused, and with it the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) index: usize,
    pub(crate) conflict: Conflict,
}

/// What a write did: the versions for its author, the changes for everyone else.
pub(crate) type Written = (Vec<Option<Version>>, Vec<Change>);

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: BTreeMap::from([(Path("/".to_owned()), Node::default())]) }
    }
}

impl Tree {
    pub(crate) fn read(&self, path: &Path, reader: SessionId) -> Option<Document> {
        let node = self.nodes.get(path)?;
        let own_ephemeral = node.owner == Some(reader);
        Some(Document { bytes: node.bytes.clone(), version: Version(node.version), own_ephemeral })
    }

    pub(crate) fn children(&self, path: &Path) -> Vec<String> {
        self.nodes.get(path).map(|node| node.children.iter().cloned().collect()).unwrap_or_default()
    }

    /// Carries out all of `writes` or none.
    pub(crate) fn write(
        &mut self,
        author: SessionId,
        writes: &[Write],
    ) -> Result<Written, Refused> {
        let mut undo = Vec::new();
        let mut versions = Vec::with_capacity(writes.len());
        let mut changes = Vec::new();
        for (index, write) in writes.iter().enumerate() {
            match self.step(author, write, &mut undo) {
                Ok((version, change)) => {
                    versions.push(version);
                    changes.extend(change);
                }
                Err(conflict) => {
                    self.roll_back(undo);
                    return Err(Refused { index, conflict });
                }
            }
        }
        Ok((versions, changes))
    }

    /// Deletes what a session leaves behind when it ends.
    pub(crate) fn delete_ephemerals(&mut self, owner: SessionId) -> Vec<Change> {
        let owned = self.nodes.iter().filter(|(_, node)| node.owner == Some(owner));
        let paths: Vec<Path> = owned.map(|(path, _)| path.clone()).collect();
        let mut changes = Vec::with_capacity(paths.len());
        for path in paths {
            self.take(&path);
            changes.push(Change::Deleted { path, ephemeral: true });
        }
        changes
    }

    /// Puts a permanent document back as it was stored; parents come first.
    pub(crate) fn restore(&mut self, path: Path, bytes: Bytes, version: Version) {
        let children = self.nodes.get(&path).map(|node| node.children.clone()).unwrap_or_default();
        self.put(path, Node { bytes, version: version.0, owner: None, children });
    }

    /// Removes a stored document again.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.take(path);
    }

    /// Every permanent document but the root, parents before children.
    pub(crate) fn permanent(&self) -> impl Iterator<Item = Change> + '_ {
        let permanent =
            self.nodes.iter().filter(|(path, node)| node.owner.is_none() && path.0 != "/");
        permanent.map(|(path, node)| Change::Put {
            path: path.clone(),
            bytes: node.bytes.clone(),
            version: Version(node.version),
            ephemeral: false,
        })
    }

    fn step(
        &mut self,
        author: SessionId,
        write: &Write,
        undo: &mut Vec<(Path, Option<Node>)>,
    ) -> Result<(Option<Version>, Option<Change>), Conflict> {
        match write {
            Write::Create { path, bytes, ephemeral } => {
                let (path, bytes, ephemeral) = (path.clone(), bytes.clone(), *ephemeral);
                self.may_create(&path)?;
                undo.push((path.clone(), None));
                let owner = ephemeral.then_some(author);
                self.put(
                    path.clone(),
                    Node { bytes: bytes.clone(), version: 0, owner, children: BTreeSet::new() },
                );
                let version = Version(0);
                Ok((Some(version), Some(Change::Put { path, bytes, version, ephemeral })))
            }
            Write::Set { path, bytes, version } => {
                let node = self.expect(path, Some(*version))?;
                let before = node.clone();
                node.bytes = bytes.clone();
                node.version = node.version.wrapping_add(1);
                let (version, ephemeral) = (Version(node.version), node.owner.is_some());
                undo.push((path.clone(), Some(before)));
                let change =
                    Change::Put { path: path.clone(), bytes: bytes.clone(), version, ephemeral };
                Ok((Some(version), Some(change)))
            }
            Write::Delete { path, version } => {
                let node = self.expect(path, *version)?;
                if !node.children.is_empty() {
                    return Err(Conflict::HasChildren);
                }
                let ephemeral = node.owner.is_some();
                undo.push((path.clone(), self.take(path)));
                Ok((None, Some(Change::Deleted { path: path.clone(), ephemeral })))
            }
            Write::Check { path, version } => {
                self.expect(path, Some(*version))?;
                Ok((None, None))
            }
        }
    }

    fn may_create(&self, path: &Path) -> Result<(), Conflict> {
        if self.nodes.contains_key(path) {
            return Err(Conflict::Exists);
        }
        let parent = path.parent().and_then(|parent| self.nodes.get(&parent));
        // Below an ephemeral nothing can be made; for the author that is as good as no parent.
        match parent {
            Some(parent) if parent.owner.is_none() => Ok(()),
            Some(_) | None => Err(Conflict::Missing),
        }
    }

    fn expect(&mut self, path: &Path, version: Option<Version>) -> Result<&mut Node, Conflict> {
        let node = self.nodes.get_mut(path).ok_or(Conflict::Missing)?;
        match version {
            Some(version) if version.0 != node.version => Err(Conflict::VersionMoved),
            Some(_) | None => Ok(node),
        }
    }

    fn put(&mut self, path: Path, node: Node) {
        if let Some((parent, name)) = family(&path)
            && let Some(parent) = self.nodes.get_mut(&parent)
        {
            parent.children.insert(name);
        }
        self.nodes.insert(path, node);
    }

    fn take(&mut self, path: &Path) -> Option<Node> {
        if let Some((parent, name)) = family(path)
            && let Some(parent) = self.nodes.get_mut(&parent)
        {
            parent.children.remove(&name);
        }
        self.nodes.remove(path)
    }

    fn roll_back(&mut self, undo: Vec<(Path, Option<Node>)>) {
        for (path, before) in undo.into_iter().rev() {
            match before {
                Some(node) => self.put(path, node),
                None => drop(self.take(&path)),
            }
        }
    }
}

fn family(path: &Path) -> Option<(Path, String)> {
    let name = path.0.rsplit('/').next()?.to_owned();
    Some((path.parent()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: SessionId = SessionId(1);
    const OTHER: SessionId = SessionId(2);

    fn path(text: &str) -> Path {
        Path(text.to_owned())
    }

    fn create(at: &str) -> Write {
        Write::Create { path: path(at), bytes: Bytes::from_static(b"new"), ephemeral: false }
    }

    fn set(at: &str, version: i32) -> Write {
        Write::Set { path: path(at), bytes: Bytes::from_static(b"set"), version: Version(version) }
    }

    fn delete(at: &str) -> Write {
        Write::Delete { path: path(at), version: None }
    }

    fn picture(tree: &Tree) -> String {
        format!("{tree:?}")
    }

    #[test]
    fn a_write_is_carried_out_whole_or_not_at_all() {
        let mut tree = Tree::default();
        tree.write(ME, &[create("/a"), create("/a/b"), create("/c")]).unwrap();
        let before = picture(&tree);
        let steps = [
            delete("/a/b"),
            delete("/a"),
            set("/c", 0),
            set("/c", 1),
            create("/d"),
            create("/d/e"),
        ];
        for (last, conflict) in [
            (set("/c", 1), Conflict::VersionMoved),
            (create("/d"), Conflict::Exists),
            (create("/x/y"), Conflict::Missing),
            (delete("/d"), Conflict::HasChildren),
            (Write::Check { path: path("/a"), version: Version(0) }, Conflict::Missing),
        ] {
            let mut writes = steps.to_vec();
            writes.push(last);
            assert_eq!(tree.write(ME, &writes).unwrap_err(), Refused { index: 6, conflict });
            assert_eq!(picture(&tree), before);
        }
        let (versions, changes) = tree.write(ME, &steps).unwrap();
        let expected = [None, None, Some(1), Some(2), Some(0), Some(0)];
        assert_eq!(versions, expected.map(|version| version.map(Version)));
        assert_eq!(changes.len(), 6);
        assert_eq!(tree.children(&path("/")), ["c", "d"]);
    }

    #[test]
    fn ephemerals_go_with_their_session_and_hold_no_children() {
        let mut tree = Tree::default();
        let ephemeral =
            |at: &str| Write::Create { path: path(at), bytes: Bytes::new(), ephemeral: true };
        tree.write(ME, &[create("/live"), ephemeral("/live/me")]).unwrap();
        tree.write(OTHER, &[ephemeral("/live/other")]).unwrap();
        assert_eq!(
            tree.write(ME, &[create("/live/me/child")]).unwrap_err().conflict,
            Conflict::Missing
        );
        assert!(tree.read(&path("/live/me"), ME).unwrap().own_ephemeral);
        assert!(!tree.read(&path("/live/me"), OTHER).unwrap().own_ephemeral);
        let gone = tree.delete_ephemerals(ME);
        assert_eq!(gone, [Change::Deleted { path: path("/live/me"), ephemeral: true }]);
        assert_eq!(tree.children(&path("/live")), ["other"]);
        assert_eq!(tree.permanent().count(), 1, "ephemerals are not stored");
    }
}
