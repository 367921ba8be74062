//! Memory of this process and this machine, where the system tells.

/// Largest resident set of this process so far, in bytes.
pub(crate) fn peak_resident() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// Bytes that this process may still take without anything being swapped out: what the machine has
/// available, or what is left of the process's control group (version 2) if that is less.
#[cfg(feature = "model")]
pub(crate) fn available() -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
        text.trim().parse().ok()
    };
    let machine = field("/proc/meminfo", "MemAvailable:")?;
    let group = number("memory.max").zip(number("memory.current"));
    let group = group.map(|(most, taken)| most.saturating_sub(taken));
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// The bytes in the line of a Linux status file that starts with `name`.
fn field(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
