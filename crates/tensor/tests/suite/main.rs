//! No operation of ours is slower than Burn's own.

#[path = "../../benches/ops/cases.rs"]
mod cases;

use std::time::{Duration, Instant};

/// Both run in turn, so that a slow phase of the machine meets both; the fastest of each counts, since noise only adds.
/// The margin is wide for the same reason: this is to catch a kernel that lost its vectors, not a few per cent.
#[test]
fn no_operation_is_slower_than_burns_own() {
    const ROUNDS: usize = 5;
    const MARGIN: f64 = 1.5;
    // Below this the time goes into the tape and the dispatch, which both have.
    const NEGLIGIBLE: Duration = Duration::from_micros(100);
    fireproof_tensor::memory::keep_freed_memory();
    let timed = |f: &dyn Fn()| {
        let start = Instant::now();
        f();
        start.elapsed()
    };
    let mut slow = Vec::new();
    for case in cases::cases() {
        let mut fastest = [Duration::MAX; 2];
        // The first round packs weights and fills pools.
        for round in 0..=ROUNDS {
            for (best, f) in fastest.iter_mut().zip([&case.ours, &case.burns]) {
                let time = timed(f);
                *best = if round == 0 { *best } else { time.min(*best) };
            }
        }
        let [ours, burns] = fastest;
        println!("{:40} {:9.3} ms, Burn's {:9.3} ms", case.name, 1e3 * ours.as_secs_f64(), 1e3 * burns.as_secs_f64());
        if ours > burns.mul_f64(MARGIN) + NEGLIGIBLE {
            slow.push(format!("{}: {ours:?}, Burn's {burns:?}", case.name));
        }
    }
    assert!(slow.is_empty(), "slower than Burn's own: {slow:#?}");
}
