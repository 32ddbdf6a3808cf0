//! How much memory there is: that of the machine, or less when a control group says so (version 1 and 2).

use std::path::{Path, PathBuf};

/// How much there is, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    pub bytes: u64,
    /// The file that says so.
    pub source: PathBuf,
}

/// What this process may use at most; `None` where the system does not say.
#[must_use]
pub fn machine_memory() -> Option<MachineMemory> {
    read(Path::new("/"))
}

/// The least of what the machine has and of what every control group around this process allows. `root` is where the
/// system's folders lie.
fn read(root: &Path) -> Option<MachineMemory> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(limit_file).flat_map(|(mount, path, file)| {
        // A group's limit holds for all below it. Inside a container the path may be that of the host: then only the mount's
        // own file is there, and it is the right one.
        let below: Vec<PathBuf> =
            Path::new(path.trim_start_matches('/')).ancestors().map(|at| mount.join(at)).collect();
        below.into_iter().map(move |folder| folder.join(file))
    });
    limits
        .filter_map(|file| {
            let said = std::fs::read_to_string(root.join(&file)).ok()?;
            // "max", in version 2, is no number, and no limit.
            let bytes = said.trim().parse().ok()?;
            Some(MachineMemory { bytes, source: Path::new("/").join(file) })
        })
        .chain(of_machine(root))
        .filter(|memory| memory.bytes > 0)
        .min_by_key(|memory| memory.bytes)
}

/// Of a line of `/proc/self/cgroup` that is about memory: where its hierarchy is mounted, the group's path, and the file with
/// the limit.
fn limit_file(line: &str) -> Option<(PathBuf, &str, &'static str)> {
    let mut parts = line.splitn(3, ':');
    let (_number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    if controllers.is_empty() {
        return Some((PathBuf::from("sys/fs/cgroup"), path, "memory.max"));
    }
    let memory = controllers.split(',').any(|controller| controller == "memory");
    memory.then(|| (PathBuf::from("sys/fs/cgroup/memory"), path, "memory.limit_in_bytes"))
}

fn of_machine(root: &Path) -> Option<MachineMemory> {
    let said = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = said.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(MachineMemory { bytes: kib.checked_mul(1024)?, source: "/proc/meminfo".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of 8 GiB with these files.
    fn machine(name: &str, files: &[(&str, &str)]) -> (PathBuf, Option<MachineMemory>) {
        let root =
            std::env::temp_dir().join(format!("bellwether-machine-{}-{name}", std::process::id()));
        let all = [("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n")];
        for (file, text) in all.iter().chain(files) {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let found = read(&root);
        std::fs::remove_dir_all(&root).unwrap();
        (root, found)
    }

    #[test]
    fn without_control_groups_it_is_the_machines() {
        let (_, found) = machine("plain", &[]);
        let found = found.unwrap();
        assert_eq!((found.bytes, found.source), (8 << 30, "/proc/meminfo".into()));
    }

    #[test]
    fn the_closest_limit_of_version_2_counts_whichever_level_sets_it() {
        let (_, found) = machine(
            "v2",
            &[
                ("proc/self/cgroup", "0::/system.slice/broker.service\n"),
                ("sys/fs/cgroup/system.slice/broker.service/memory.max", "max\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
            ],
        );
        let found = found.unwrap();
        assert_eq!(found.bytes, 1 << 30);
        assert_eq!(found.source, Path::new("/sys/fs/cgroup/system.slice/memory.max"));
    }

    #[test]
    fn a_limit_of_version_1_counts_and_its_no_limit_does_not() {
        let group = "5:cpu:/\n4:memory:/box\n0::/\n";
        let limit = "sys/fs/cgroup/memory/box/memory.limit_in_bytes";
        let (_, found) = machine("v1", &[("proc/self/cgroup", group), (limit, "268435456\n")]);
        assert_eq!(found.unwrap().bytes, 256 << 20);
        let (_, found) =
            machine("v1-open", &[("proc/self/cgroup", group), (limit, "9223372036854771712\n")]);
        assert_eq!(found.unwrap().bytes, 8 << 30);
    }

    #[test]
    fn inside_a_container_the_mounts_own_file_counts() {
        let (_, found) = machine(
            "container",
            &[
                ("proc/self/cgroup", "0::/docker/0123456789ab\n"),
                ("sys/fs/cgroup/memory.max", "536870912\n"),
            ],
        );
        assert_eq!(found.unwrap().bytes, 512 << 20);
    }
}
