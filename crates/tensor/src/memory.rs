//! The process's memory: keeping what was freed, and measuring the peak.

/// Makes the C library keep freed memory instead of returning every large tensor to the system. True if it was heard.
///
/// By default glibc maps each large block anew, so that every tensor pays for its page faults: a third of an attack's time
/// on a CPU. The binaries of fireproof call this first thing in `main`; a program of your own should too, before its first
/// large allocation. It costs nothing but memory that stays with the process: the peak, not more. Where the C library is
/// not glibc it does nothing and returns false.
///
/// The system is also asked to back the heap with huge pages where it lets programs ask (`madvise` in
/// `/sys/kernel/mm/transparent_hugepage/enabled`): the kernels of a network walk through hundreds of megabytes, and spend 2
/// to 4 % of their time on finding small pages.
///
/// ```
/// fireproof_tensor::memory::keep_freed_memory();
/// ```
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // The largest value that every glibc accepts as threshold is half a secondary heap, 32 MiB; larger blocks are mapped
        // still unless mappings are forbidden altogether.
        const LARGEST_THRESHOLD: libc::c_int = 32 << 20;
        // Heaps of other threads hold 64 MiB at most and map larger blocks anew; one arena for all threads has no such limit.
        // Tensors are few and large, so the threads rarely meet at its lock.
        const ONE_ARENA: libc::c_int = 1;
        const NEVER: libc::c_int = -1;
        // SAFETY: `mallopt` only stores its arguments in the allocator's parameters, under the allocator's own lock.
        unsafe {
            let heard = libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_THRESHOLD) == 1
                && libc::mallopt(libc::M_MMAP_MAX, 0) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, NEVER) == 1
                && libc::mallopt(libc::M_ARENA_MAX, ONE_ARENA) == 1;
            if heard {
                prefer_huge_pages();
            }
            heard
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Advice holds for addresses that the main thread's heap already has, so it grows once to half of the machine's memory; what is not touched
/// takes no memory. Where that or the advice is refused, pages stay small.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn prefer_huge_pages() {
    const HUGE_PAGE: usize = 2 << 20;
    // Where the system promises no more memory than it has, untouched memory counts.
    let strict = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2");
    let Some((total, _)) = machine().filter(|_| !strict) else { return };
    let Ok(len) = usize::try_from(total / 2) else { return };
    // SAFETY: the block is used between `malloc` and `free` only, and the advice covers whole pages inside it.
    unsafe {
        let block = libc::malloc(len);
        let start = block.cast::<u8>();
        let inside = start.align_offset(HUGE_PAGE);
        if !block.is_null() && inside < len {
            libc::madvise(start.add(inside).cast(), (len - inside) / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE);
        }
        libc::free(block);
    }
}

/// The most memory that this process has held so far, in bytes, or `None` where the system does not say.
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// The memory that this process holds now, in bytes, or `None` where the system does not say.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The machine's memory in bytes, total and available, or `None` where the system does not say.
pub fn machine() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some((field(&text, "MemTotal:")?, field(&text, "MemAvailable:")?))
}

fn status(name: &str) -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, name)
}

/// The value of a line such as `VmHWM:    1234 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name_and_given_in_bytes() {
        let text = "VmPeak:\t  10 kB\nVmHWM:\t    3 kB\nVmRSS:\t 2 kB\n";
        assert_eq!((field(text, "VmHWM:"), field(text, "VmRSS:"), field(text, "Vm:")), (Some(3072), Some(2048), None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_covers_what_was_touched() {
        let before = resident().unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak().unwrap() >= before + (60 << 20), "{} bytes touched", block.len());
    }

    /// In a process of its own, as the settings must come before its threads.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn a_freed_block_stays_with_the_process_in_every_thread() {
        const CHILD: &str = "FIREPROOF_MEMORY_TEST_CHILD";
        let held_after = |block: Vec<u8>| {
            drop(std::hint::black_box(block));
            resident().unwrap()
        };
        if std::env::var_os(CHILD).is_some() {
            assert!(keep_freed_memory());
            let held = std::thread::spawn(move || held_after(vec![1u8; 256 << 20])).join().unwrap();
            assert!(held > 200 << 20, "only {held} bytes are held");
            return;
        }
        let name = "memory::tests::a_freed_block_stays_with_the_process_in_every_thread";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        // One test thread is the main thread.
        child.args(["--exact", name, "--test-threads=1"]).env(CHILD, "1");
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child ran no test");
    }
}
