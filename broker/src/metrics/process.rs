//! What the system says of the process, under the names that every Prometheus client uses; and what was built.

use procfs::process::{LimitValue, Process};

use super::{Family, Kind};

const fn of_process(name: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name, kind, labels: &[], help }
}

/// Which version runs. Always 1.
pub const BUILD: Family = Family {
    name: "bellwether_build_info",
    kind: Kind::Gauge,
    labels: &["version"],
    help: "1, with the version that runs.",
};

/// The families of [`read`], in its order.
pub const FAMILIES: [Family; 7] = [
    of_process("process_cpu_seconds_total", Kind::Counter, "Processor time used, user and system."),
    of_process("process_resident_memory_bytes", Kind::Gauge, "Memory that the process has in use."),
    of_process("process_virtual_memory_bytes", Kind::Gauge, "Address space of the process."),
    of_process("process_open_fds", Kind::Gauge, "File descriptors open."),
    of_process("process_max_fds", Kind::Gauge, "File descriptors that may be open."),
    of_process("process_threads", Kind::Gauge, "Threads of the process."),
    of_process(
        "process_start_time_seconds",
        Kind::Gauge,
        "When the process began, in seconds since 1970.",
    ),
];

/// The values now, in the order of [`FAMILIES`]; those that the system does not tell are left out.
#[must_use]
pub fn read() -> [Option<f64>; FAMILIES.len()] {
    let Ok(process) = Process::myself() else { return [None; FAMILIES.len()] };
    let ticks = procfs::ticks_per_second() as f64;
    let stat = process.stat().ok();
    let began = stat.as_ref().and_then(|stat| {
        let boot = procfs::boot_time_secs().ok()?;
        Some(boot as f64 + stat.starttime as f64 / ticks)
    });
    let fds_max = process.limits().ok().map(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Unlimited => f64::INFINITY,
        LimitValue::Value(most) => most as f64,
    });
    [
        stat.as_ref().map(|stat| (stat.utime + stat.stime) as f64 / ticks),
        stat.as_ref().map(|stat| (stat.rss * procfs::page_size()) as f64),
        stat.as_ref().map(|stat| stat.vsize as f64),
        process.fd_count().ok().map(|count| count as f64),
        fds_max,
        stat.as_ref().map(|stat| stat.num_threads as f64),
        began,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_all_of_it_and_the_units_are_right() {
        let [cpu, resident, virtual_, fds, fds_max, threads, began] = read().map(Option::unwrap);
        assert!((0.0..1e6).contains(&cpu), "{cpu}");
        assert!(resident > 100_000.0 && resident < virtual_, "{resident} of {virtual_}");
        assert!(fds >= 3.0 && fds <= fds_max, "{fds} of {fds_max}");
        assert!(threads >= 1.0);
        assert!(began > 1.5e9, "{began}");
    }
}
