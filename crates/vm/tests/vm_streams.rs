//! Streams between host and guest, from end to end: a program in a utility VM, QEMU, and the vsock device.
//!
//! Every step has a limit, so that a stream that stands still fails the test. The amounts are such that emulation is
//! quick enough for every run. With the environment variable `COFFERDAM_STRESS` set, up to 1 GiB goes each way in
//! writes of each size, and the throughput is printed:
//!
//! ```sh
//! COFFERDAM_STRESS=1 cargo xtask test vm -- writes_of_every_size
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod streams;

use std::{
    io::{ErrorKind, Write},
    time::{Duration, Instant},
};

use streams::{
    Guest, LIMIT,
    ends::{receive, receive_slowly, send, write_until_refused},
    within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1 << 20;
/// One end has gone: how long the other may take to learn of it.
const NEWS_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of a write (0: of any size), and how many bytes go each way in it: always, and under stress.
const WRITES: [(usize, usize, usize); 9] = [
    (1, 64 << 10, 2 * MIB),
    (3, 128 << 10, 6 * MIB),
    (100, MIB, 128 * MIB),
    (4096, 4 * MIB, 512 * MIB),
    (65_536, 4 * MIB, 1024 * MIB),
    (65_537, 4 * MIB, 1024 * MIB),
    (262_144, 4 * MIB, 1024 * MIB),
    (1_048_576, 4 * MIB, 1024 * MIB),
    (0, 8 * MIB, 1024 * MIB),
];

/// A gigabyte takes its time under emulation.
const STRESS_LIMIT: Duration = Duration::from_secs(280);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn writes_of_every_size_arrive_byte_for_byte_in_both_directions_at_once() {
    let stress = std::env::var_os("COFFERDAM_STRESS").is_some();
    let limit = if stress { STRESS_LIMIT } else { LIMIT };
    let mut guest = Guest::boot().await;
    for (size, few, many) in WRITES {
        let bytes = if stress { many } else { few };
        if stress {
            let (up, down) = one_way_each(&mut guest, bytes, size, limit).await;
            let both = both_ways(&mut guest, bytes, size, limit).await;
            // Past the harness, which would keep it: a runner that watches for silence must hear of it.
            let _ = writeln!(
                std::io::stderr(),
                "writes of {size:>7}: {:>5} MiB to the host {up:>6.2} MiB/s, to the guest {down:>6.2}, \
                 both ways {both:>6.2} each",
                bytes / MIB,
            );
        } else {
            both_ways(&mut guest, bytes, size, limit).await;
        }
    }
    guest.end().await;
}

fn rate(bytes: usize, begun: Instant) -> f64 {
    bytes as f64 / MIB as f64 / begun.elapsed().as_secs_f64()
}

async fn both_ways(guest: &mut Guest, bytes: usize, size: usize, limit: Duration) -> f64 {
    let what = format!("both ways in writes of {size}");
    let begun = Instant::now();
    let stream = guest.stream(&format!("both {bytes} {size} 10")).await;
    let (mut reading, mut writing) = tokio::io::split(stream);
    let writer = tokio::spawn(async move {
        send(&mut writing, bytes, size, 11).await.unwrap();
        writing.shutdown().await.unwrap();
    });
    assert_eq!(within(limit, &what, receive(&mut reading, 10)).await, bytes);
    within(limit, &what, writer).await.unwrap();
    guest.answer_within(limit).await;
    rate(bytes, begun)
}

/// To the host, then to the guest; in MiB/s.
async fn one_way_each(guest: &mut Guest, bytes: usize, size: usize, limit: Duration) -> (f64, f64) {
    let what = format!("one way in writes of {size}");
    let mut stream = guest.stream(&format!("send {bytes} {size} 12")).await;
    let begun = Instant::now();
    assert_eq!(within(limit, &what, receive(&mut stream, 12)).await, bytes);
    let up = rate(bytes, begun);
    // The guest waits for this end before it answers.
    stream.shutdown().await.unwrap();
    guest.answer_within(limit).await;

    let mut stream = guest.stream(&format!("receive {bytes} {} 13 0", 1 << 17)).await;
    let begun = Instant::now();
    within(limit, &what, send(&mut stream, bytes, size, 13))
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    guest.answer_within(limit).await;
    (up, rate(bytes, begun))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn slow_readers_lose_nothing_and_hold_up_nobody_else() {
    let mut guest = Guest::boot().await;

    // The host reads slowly; meanwhile another stream is quick.
    let bytes = 2 * MIB;
    let mut slow = guest.stream(&format!("send {bytes} 0 1")).await;
    let reader = tokio::spawn(async move {
        let received = receive_slowly(&mut slow, 1, 4000, Duration::from_millis(2)).await;
        (received, slow)
    });
    let (received, mut slow) = within(LIMIT, "a slow reader on the host", reader).await.unwrap();
    assert_eq!(received, bytes);
    slow.shutdown().await.unwrap();
    guest.answer().await;

    // The guest reads slowly, small pieces out of small writes as well.
    for size in [10, 100_000] {
        let bytes = if size == 10 { 20_000 } else { 2 * MIB };
        let mut slow = guest
            .stream(&format!("receive {bytes} {} 2 2000", size.clamp(100, 5000)))
            .await;
        within(LIMIT, "a slow reader in the guest", async {
            send(&mut slow, bytes, size, 2).await.unwrap();
            slow.shutdown().await.unwrap();
        })
        .await;
        guest.answer().await;
    }

    // A reader that never reads holds up no other stream.
    let stuck = guest.stream("persist").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(stuck);
    guest.answer().await;
    guest.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn an_end_that_vanishes_is_noticed_by_the_other() {
    let mut guest = Guest::boot().await;

    // The host's reader goes, with bytes unread: the guest's writes fail.
    let mut stream = guest.stream("persist").await;
    let mut some = [0; 1000];
    within(LIMIT, "bytes of the guest", stream.read_exact(&mut some))
        .await
        .unwrap();
    drop(stream);
    guest.answer_within(NEWS_LIMIT).await;

    // The host's writer goes: the guest reads everything it wrote, and then the end.
    let mut stream = guest.stream("drain").await;
    send(&mut stream, 500_000, 0, 1).await.unwrap();
    drop(stream);
    assert_eq!(guest.answer_within(NEWS_LIMIT).await, 500_000);

    // The guest's reader goes: the host's writes fail.
    let mut stream = guest.stream("abandon 100000 2").await;
    send(&mut stream, 100_000, 0, 2).await.unwrap();
    let refused = within(NEWS_LIMIT, "a broken pipe", write_until_refused(&mut stream)).await;
    assert!(
        matches!(refused, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
        "{refused}"
    );
    guest.answer().await;

    // The guest's writer goes: the host reads everything it wrote, and then the end.
    let mut stream = guest.stream("leave 3000000 3").await;
    let received = within(LIMIT, "what the guest left", receive(&mut stream, 3)).await;
    assert_eq!(received, 3_000_000);
    guest.answer().await;

    // A slow host reads it all after the guest's process has gone, and its kernel with it.
    let mut stream = guest.stream("leave 400000 4").await;
    guest.answer().await;
    guest.tell("hold 20").await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(guest.accept().await);
    }
    guest.answer().await;
    guest.kill().await;
    for mut stream in held {
        let mut said = Vec::new();
        within(
            NEWS_LIMIT,
            "the end of a killed program",
            stream.read_to_end(&mut said),
        )
        .await
        .unwrap();
        assert_eq!(said, b"held");
        let refused = within(NEWS_LIMIT, "a broken pipe", write_until_refused(&mut stream)).await;
        assert_eq!(refused, ErrorKind::BrokenPipe);
    }
    guest.stop().await;
    let received = within(LIMIT, "what the guest left", receive(&mut stream, 4)).await;
    assert_eq!(received, 400_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn either_side_may_end_its_sending_first() {
    let mut guest = Guest::boot().await;
    let bytes = MIB;
    for seed in 0..3 {
        let mut stream = guest.stream(&format!("ask {bytes} {seed}")).await;
        within(LIMIT, "the guest ends its sending first", async {
            assert_eq!(receive(&mut stream, seed).await, bytes);
            send(&mut stream, bytes, 0, seed).await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .await;
        guest.answer().await;

        let mut stream = guest.stream(&format!("answer {bytes} {seed}")).await;
        within(LIMIT, "the host ends its sending first", async {
            send(&mut stream, bytes, 0, seed).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(receive(&mut stream, seed).await, bytes);
        })
        .await;
        guest.answer().await;
    }
    guest.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn two_hundred_streams_at_once_and_a_thousand_in_sequence() {
    let stress = std::env::var_os("COFFERDAM_STRESS").is_some();
    let mut guest = Guest::boot().await;
    let bytes = 20_000;
    guest.tell(&format!("crowd 200 {bytes}")).await;
    let mut echoes = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let mut stream = guest.accept().await;
        echoes.spawn(async move {
            let number = stream.read_u32_le().await.unwrap();
            let mut piece = vec![0; 4096];
            let mut echoed = 0;
            loop {
                let length = stream.read(&mut piece).await.unwrap();
                if length == 0 {
                    break;
                }
                assert!(piece[..length].iter().all(|byte| *byte == number as u8));
                stream.write_all(&piece[..length]).await.unwrap();
                echoed += length;
            }
            assert_eq!(echoed, bytes);
            number
        });
    }
    let mut numbers = within(LIMIT, "two hundred echoes", echoes.join_all()).await;
    guest.answer().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());

    let count = 1000;
    guest.tell(&format!("sequence {count}")).await;
    let begun = Instant::now();
    for _ in 0..count {
        let mut stream = guest.accept().await;
        let byte = within(LIMIT, "a byte", stream.read_u8()).await.unwrap();
        stream.write_u8(byte).await.unwrap();
        let rest = within(LIMIT, "the end", stream.read(&mut [0])).await.unwrap();
        assert_eq!(rest, 0);
    }
    guest.answer().await;
    if stress {
        let rate = f64::from(count) / begun.elapsed().as_secs_f64();
        let _ = writeln!(
            std::io::stderr(),
            "{count} streams in sequence: {rate:.0} a second"
        );
    }
    guest.end().await;
}
