//! Bytes through the queues: nothing is lost, and nobody waits for a notification that does not come.

use std::{
    io::{Read, Write},
    time::Duration,
};

use vm_memory::{Bytes, GuestAddress};

use crate::{
    driver::{Driver, LARGE_QUEUE_SIZE, LIMIT, RX, TX},
    guest::{CREDIT_REQUEST, DATA, Guest, SHUTDOWN, packet},
    rig::{Rig, pattern, read_to_end},
};

fn both_ways_at_once(event_idx: bool) {
    const LENGTH: usize = 6 << 20;
    let mut rig = Rig::new();
    let mut guest = Guest::dial(Driver::start(&rig.socket, event_idx), 7);
    let mut host = rig.accept();
    let (up, down) = (pattern(1, LENGTH), pattern(2, LENGTH));
    let writer = std::thread::spawn({
        let (mut host, down) = (host.try_clone().unwrap(), down.clone());
        move || {
            for (turn, piece) in down.chunks(10_007).enumerate() {
                if turn % 64 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
                host.write_all(piece).unwrap();
            }
            host.shutdown(std::net::Shutdown::Write).unwrap();
        }
    });
    let reader = std::thread::spawn(move || read_to_end(&mut host));
    let mut sent = 0;
    while sent < LENGTH || guest.received.len() < LENGTH {
        sent += guest.send(&up[sent..]);
        // Only when there is nothing else to do, the driver sleeps until it is interrupted.
        let idle = sent == LENGTH || guest.credit() == 0;
        let taken = guest.take_one(Duration::from_secs(if idle { 5 } else { 0 }));
        assert!(
            taken || !idle,
            "stuck at {sent} sent, {} received",
            guest.received.len()
        );
    }
    guest.say(SHUTDOWN, 2);
    writer.join().unwrap();
    assert!(reader.join().unwrap() == up);
    assert!(guest.received == down);
    guest.until("the end", |guest| guest.reset);
}

#[test]
fn bytes_go_both_ways_at_once_with_event_indices() {
    both_ways_at_once(true);
}

#[test]
fn bytes_go_both_ways_at_once_without_event_indices() {
    both_ways_at_once(false);
}

#[test]
fn the_config_space_is_the_guests_context_id() {
    let rig = Rig::new();
    assert_eq!(rig.driver().config(), 3);
}

#[test]
fn a_packet_that_finds_no_buffer_is_sent_when_there_is_one() {
    let mut rig = Rig::new();
    let (mut guest, mut host) = rig.connect();
    // More than eight buffers of 4 KiB hold; the driver looks at none of them meanwhile.
    let bytes = pattern(3, 60_000);
    host.write_all(&bytes).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    guest.until("all bytes", |guest| guest.received.len() == 60_000);
    assert!(guest.received == bytes);
}

#[test]
fn one_notification_is_enough_for_a_full_queue() {
    let rig = Rig::new();
    let mut driver = rig.driver();
    driver.resize_queue(TX, LARGE_QUEUE_SIZE);
    let refused = packet(7, DATA, 0, 0, (0, 0), &[]);
    driver
        .memory
        .write_slice(&refused, GuestAddress(Driver::buffer(TX, 0)))
        .unwrap();
    for slot in 0..LARGE_QUEUE_SIZE {
        driver.describe(TX, slot, Driver::buffer(TX, 0), refused.len() as u32, 0, 0);
        driver.store(driver.queues[TX].avail + 4 + u64::from(slot) * 2, slot);
    }
    driver.store(driver.queues[TX].avail + 2, LARGE_QUEUE_SIZE);
    driver.kick(TX);
    for slot in 0..LARGE_QUEUE_SIZE {
        let (used, _) = driver
            .wait_used(TX, LIMIT)
            .unwrap_or_else(|| panic!("stuck at {slot}"));
        assert_eq!(used, slot);
    }
}

#[test]
fn a_paused_vm_goes_on_where_it_stopped() {
    let mut rig = Rig::new();
    let (mut guest, mut host) = rig.connect();
    guest.send(b"before");
    let mut said = [0; 6];
    host.read_exact(&mut said).unwrap();
    let bases = [RX, TX].map(|queue| guest.driver.stop_queue(queue));
    host.write_all(b"meanwhile").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    for (queue, base) in [RX, TX].into_iter().zip(bases) {
        guest.driver.start_queue(queue, base);
    }
    guest.until("what was written meanwhile", |guest| {
        guest.received == b"meanwhile"
    });
    guest.send(b"after!");
    host.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"after!");
}

#[test]
fn a_guest_that_boots_anew_has_none_of_its_old_streams() {
    let mut rig = Rig::new();
    let (mut guest, mut host) = rig.connect();
    guest.send(b"last words");
    guest.say(CREDIT_REQUEST, 0);
    guest.take_one(Duration::from_secs(5));
    for queue in [RX, TX] {
        guest.driver.stop_queue(queue);
    }
    guest.driver.set_up_queues();
    // Another port: a connection of the same ports would end the old one by itself.
    let mut guest = Guest::dial(guest.driver, 8);
    assert_eq!(read_to_end(&mut host), b"last words");
    let mut host = rig.accept();
    guest.send(b"hello");
    let mut said = [0; 5];
    host.read_exact(&mut said).unwrap();
}
