//! Queues full of nonsense. The device survives, and serves the guest that sets its queues up anew.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::{
    driver::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Driver, HEADER_BYTES, MEMORY_BYTES, QUEUE_SIZE, RX, TX},
    guest::{DATA, Guest, packet},
    rig::{Rig, pattern, read_to_end},
};

const NOWHERE: u64 = 0xffff_ffff_0000;

/// A stream carries bytes both ways.
fn works(guest: &mut Guest, host: &mut UnixStream) {
    let before = guest.received.len();
    guest.send(b"up");
    let mut said = [0; 2];
    host.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"up");
    host.write_all(b"down").unwrap();
    guest.until("bytes of the host", |guest| guest.received.len() == before + 4);
    assert_eq!(&guest.received[before..], b"down");
}

/// The guest sets its queues up anew and dials.
fn works_after_a_reset(rig: &mut Rig, mut guest: Guest) {
    for queue in [RX, TX] {
        guest.driver.stop_queue(queue);
    }
    guest.driver.set_up_queues();
    let mut guest = Guest::dial(guest.driver, 8);
    let mut host = rig.accept();
    works(&mut guest, &mut host);
}

type Break = fn(&mut Driver);

/// What breaks a queue so that it cannot be followed.
const BREAKS: [(&str, Break); 5] = [
    ("a head beyond the transmit queue", |driver| {
        driver.offer(TX, QUEUE_SIZE)
    }),
    ("a head far beyond it", |driver| driver.offer(TX, u16::MAX)),
    ("an index far ahead in the transmit queue", |driver| {
        driver.store(driver.queues[TX].avail + 2, 0x4000);
        driver.kick(TX);
    }),
    ("an index behind in the transmit queue", |driver| {
        driver.store(driver.queues[TX].avail + 2, 0);
        driver.kick(TX);
    }),
    ("an index far ahead in the receive queue", |driver| {
        driver.store(driver.queues[RX].avail + 2, 0x4000);
        driver.kick(RX);
    }),
];

#[test]
fn a_queue_that_cannot_be_followed_ends_the_streams_and_works_when_set_up_anew() {
    for (what, break_it) in BREAKS {
        let mut rig = Rig::new();
        let (mut guest, mut host) = rig.connect();
        works(&mut guest, &mut host);
        // Whatever queue it is: with something to send the device looks at both.
        host.write_all(b"more").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        break_it(&mut guest.driver);
        host.write_all(b"and more").ok();
        let mut rest = Vec::new();
        // The guest's end never read what was written: an error is an end too.
        let _ = host.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{what}");
        assert_eq!(guest.driver.config(), 3, "{what}");
        works_after_a_reset(&mut rig, guest);
    }
}

#[test]
fn a_queue_that_reaches_beyond_memory_does_not_stop_the_device() {
    let mut rig = Rig::new();
    let (mut guest, _host) = rig.connect();
    let driver = &mut guest.driver;
    driver.stop_queue(TX);
    // Its index can be read, its entries cannot.
    driver.queues[TX].avail = MEMORY_BYTES - 4;
    driver.start_queue(TX, 0);
    driver.store(MEMORY_BYTES - 2, 1);
    driver.kick(TX);
    std::thread::sleep(Duration::from_millis(50));
    works_after_a_reset(&mut rig, guest);
}

/// Describes a buffer in this slot.
type Describe = fn(&mut Driver, u16);

/// Bad buffers in a transmit queue that can be followed still.
const BAD_PACKETS: [(&str, Describe); 8] = [
    ("outside memory", |driver, slot| {
        driver.describe(TX, slot, NOWHERE, 100, 0, 0);
    }),
    ("across the end of memory", |driver, slot| {
        driver.describe(TX, slot, (4 << 20) - 10, 100, 0, 0);
    }),
    ("an address that overflows", |driver, slot| {
        driver.describe(TX, slot, u64::MAX - 10, 100, 0, 0);
    }),
    ("shorter than a header", |driver, slot| {
        driver.describe(TX, slot, Driver::buffer(TX, slot), HEADER_BYTES as u32 - 1, 0, 0);
    }),
    ("empty", |driver, slot| {
        driver.describe(TX, slot, Driver::buffer(TX, slot), 0, 0, 0);
    }),
    ("in a circle", |driver, slot| {
        driver.describe(TX, slot, Driver::buffer(TX, slot), 1, DESC_NEXT, slot);
    }),
    ("writable", |driver, slot| {
        driver.describe(TX, slot, Driver::buffer(TX, slot), 4096, DESC_WRITE, 0);
    }),
    ("an indirect table outside memory", |driver, slot| {
        driver.describe(TX, slot, NOWHERE, 160, DESC_INDIRECT, 0);
    }),
];

#[test]
fn a_bad_packet_is_given_back_and_the_streams_live() {
    let mut rig = Rig::new();
    let (mut guest, mut host) = rig.connect();
    for (what, describe) in BAD_PACKETS {
        for _ in 0..3 * QUEUE_SIZE {
            let slot = guest.driver.transmit_slot();
            describe(&mut guest.driver, slot);
            guest.driver.offer(TX, slot);
        }
        works(&mut guest, &mut host);
        println!("survived: {what}");
    }
}

#[test]
fn a_packet_longer_than_its_buffers_or_the_limit_resets_its_stream() {
    for (length, payload) in [(100, 10), (65_537, 65_537), (u32::MAX, 10)] {
        let mut rig = Rig::new();
        let (mut guest, mut host) = rig.connect();
        works(&mut guest, &mut host);
        let bytes = packet(7, DATA, 0, length, (65_536, 4), &pattern(0, payload));
        guest.driver.transmit(&bytes);
        guest.until("a reset", |guest| guest.reset);
        assert_eq!(read_to_end(&mut host), b"");
        let mut guest = Guest::dial(guest.driver, 8);
        works(&mut guest, &mut rig.accept());
    }
}

#[test]
fn receive_buffers_without_room_are_given_back_unused() {
    let mut rig = Rig::new();
    let (mut guest, mut host) = rig.connect();
    works(&mut guest, &mut host);
    // Take all buffers out of the device's hands, by having it fill them.
    let mut expected = 0;
    for (address, length, flags) in [
        (Driver::buffer(RX, 0), HEADER_BYTES as u32, DESC_WRITE),
        (Driver::buffer(RX, 0), 10, DESC_WRITE),
        (Driver::buffer(RX, 0), 4096, 0),
        (NOWHERE, 4096, DESC_WRITE),
    ] {
        for slot in 0..QUEUE_SIZE {
            guest.driver.describe(RX, slot, address, length, flags, 0);
        }
        host.write_all(b"x").unwrap();
        expected += 1;
        let before = guest.received.len();
        for _ in 0..QUEUE_SIZE {
            let (slot, length) = guest.driver.wait_used(RX, Duration::from_secs(5)).unwrap();
            assert_eq!(length, 0);
            guest
                .driver
                .describe(RX, slot, Driver::buffer(RX, slot), 4096, DESC_WRITE, 0);
            guest.driver.offer(RX, slot);
        }
        guest.until("the byte", |guest| guest.received.len() > before);
    }
    assert_eq!(guest.received.len(), 4 + expected);
    works(&mut guest, &mut host);
}
