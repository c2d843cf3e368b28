//! How a device ends: at once, whatever state it is in, and without losing what the guest sent.

use std::{
    io::{ErrorKind, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cofferdam_vsock::{VhostUserVsock, VsockError, VsockListener};

use crate::{
    driver::{Driver, LARGE_QUEUE_SIZE, TX},
    guest::{GUEST_CID, PORT},
    rig::{Rig, pattern, read_to_end, within},
};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_device_nobody_connected_to_is_dropped_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("vsock");
    let device = VhostUserVsock::bind(&socket, GUEST_CID).unwrap();
    within(SOON, "the drop", move || drop(device));
    assert!(!socket.exists());

    let device = VhostUserVsock::bind(&socket, GUEST_CID).unwrap();
    std::fs::remove_file(&socket).unwrap();
    within(SOON, "the drop without its socket", move || drop(device));
}

#[test]
fn a_device_is_dropped_at_once_however_far_the_hypervisor_has_come() {
    for round in 0..200_u64 {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("vsock");
        let device = VhostUserVsock::bind(&socket, GUEST_CID).unwrap();
        let hypervisor = UnixStream::connect(&socket).unwrap();
        std::thread::sleep(Duration::from_micros(round * 5));
        within(SOON, "the drop", move || drop(device));
        drop(hypervisor);
    }
}

#[test]
fn a_device_and_its_listeners_go_to_any_thread() {
    fn any_thread<T: Send + Sync>() {}
    any_thread::<VhostUserVsock>();
    any_thread::<VsockListener>();
}

#[test]
fn a_hypervisor_that_speaks_nonsense_ends_the_device_and_not_the_process() {
    let mut rig = Rig::new();
    let mut hypervisor = UnixStream::connect(&rig.socket).unwrap();
    hypervisor.write_all(&[0xff; 200]).unwrap();
    assert_eq!(rig.try_accept().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn a_second_hypervisor_is_refused() {
    let rig = Rig::new();
    let _driver = rig.driver();
    let refused = |rig: &Rig| match UnixStream::connect(&rig.socket) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    };
    let begun = Instant::now();
    while !refused(&rig) {
        assert!(begun.elapsed() < SOON);
    }
}

#[test]
fn when_the_hypervisor_goes_every_stream_ends_after_its_last_byte() {
    let mut rig = Rig::new();
    let (mut guest, mut host) = rig.connect();
    let bytes = pattern(1, 4 << 20);
    let sent = guest.send_until_full(&bytes);
    assert!(sent > 256 << 10, "the socket and the device are full: {sent}");
    drop(guest);
    assert_eq!(rig.try_accept().unwrap_err().kind(), ErrorKind::NotConnected);
    assert!(matches!(rig.device.listen(PORT + 1), Err(VsockError::Ended)));
    assert!(read_to_end(&mut host) == bytes[..sent]);
    assert_eq!(host.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_dropped_device_waits_for_no_reader_and_still_gives_it_every_byte() {
    let mut rig = Rig::new();
    let (mut guest, mut host) = rig.connect();
    let bytes = pattern(1, 4 << 20);
    let sent = guest.send_until_full(&bytes);
    let device = rig.device;
    within(SOON, "the drop while connected", move || drop(device));
    assert!(read_to_end(&mut host) == bytes[..sent]);
}

#[test]
fn a_guest_that_never_pauses_does_not_hold_up_the_drop() {
    let mut rig = Rig::new();
    let (guest, _host) = rig.connect();
    let device = rig.device;
    let stop = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = stop.clone();
        let mut driver = guest.driver;
        move || flood(&mut driver, &stop)
    });
    std::thread::sleep(Duration::from_millis(100));
    within(SOON, "the drop", move || drop(device));
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
}

/// Offers the same headers over and over in a large queue, faster than the device can get to its end.
fn flood(driver: &mut Driver, stop: &AtomicBool) {
    driver.resize_queue(TX, LARGE_QUEUE_SIZE);
    for slot in 0..LARGE_QUEUE_SIZE {
        driver.describe(TX, slot, Driver::buffer(TX, 0), 44, 0, 0);
        driver.offer(TX, slot);
    }
    while !stop.load(Ordering::Relaxed) {
        while let Some((slot, _)) = driver.used(TX) {
            driver.offer(TX, slot);
        }
    }
}
