//! Record locks against the host, against other guests, and within one guest.

use std::{fs::File, os::fd::AsFd};

use cofferdam_p9::wire::OpenFlags;
use nix::fcntl::{FcntlArg, fcntl};

use crate::rig::{Rig, open_below};

const READ: u8 = 0;
const WRITE: u8 = 1;
const UNLOCK: u8 = 2;
const GRANTED: u8 = 0;
const BLOCKED: u8 = 1;

fn host_lock(file: impl AsFd, kind: libc::c_int, start: i64, len: i64) -> nix::Result<i32> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock))
}

fn open_on_host(rig: &Rig) -> File {
    File::options()
        .read(true)
        .write(true)
        .open(rig.path("f"))
        .unwrap()
}

fn rig_with_file() -> Rig {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "0123456789").unwrap();
    rig
}

#[test]
fn a_lock_of_the_host_is_in_the_guests_way() {
    let rig = rig_with_file();
    let host = open_on_host(&rig);
    host_lock(&host, libc::F_WRLCK, 0, 5).unwrap();
    let (mut client, root) = rig.attached();
    let f = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    assert_eq!(client.lock(f, WRITE, 0, 0, 1).unwrap(), BLOCKED);
    assert_eq!(client.lock(f, READ, 4, 1, 1).unwrap(), BLOCKED);
    assert_eq!(client.getlock(f, READ, 0, 0).unwrap(), (WRITE, 0, 5));
    assert_eq!(client.lock(f, WRITE, 5, 0, 1).unwrap(), GRANTED);
    host_lock(&host, libc::F_UNLCK, 0, 0).unwrap();
    assert_eq!(client.getlock(f, WRITE, 0, 5).unwrap(), (UNLOCK, 0, 5));
    assert_eq!(client.lock(f, WRITE, 0, 5, 1).unwrap(), GRANTED);
}

#[test]
fn a_lock_of_the_guest_is_in_the_hosts_way_until_it_is_given_back() {
    let rig = rig_with_file();
    let host = open_on_host(&rig);
    let (mut client, root) = rig.attached();
    let f = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    assert_eq!(client.lock(f, WRITE, 2, 3, 1).unwrap(), GRANTED);
    assert_eq!(
        host_lock(&host, libc::F_RDLCK, 4, 1).unwrap_err(),
        nix::errno::Errno::EAGAIN
    );
    host_lock(&host, libc::F_WRLCK, 5, 0).unwrap();
    assert_eq!(client.lock(f, UNLOCK, 0, 0, 1).unwrap(), GRANTED);
    host_lock(&host, libc::F_WRLCK, 0, 0).unwrap();
}

#[test]
fn two_guests_are_in_each_others_way() {
    let rig = rig_with_file();
    let (mut one, root_one) = rig.attached();
    let (mut two, root_two) = rig.attached();
    let f = one.open_at(root_one, &["f"], OpenFlags::READ_WRITE).unwrap();
    let g = two.open_at(root_two, &["f"], OpenFlags::READ_WRITE).unwrap();
    assert_eq!(one.lock(f, READ, 0, 0, 1).unwrap(), GRANTED);
    assert_eq!(two.lock(g, READ, 0, 0, 1).unwrap(), GRANTED);
    assert_eq!(two.lock(g, WRITE, 0, 0, 1).unwrap(), BLOCKED);
    assert_eq!(one.lock(f, UNLOCK, 0, 0, 1).unwrap(), GRANTED);
    assert_eq!(two.lock(g, WRITE, 0, 0, 1).unwrap(), GRANTED);
}

#[test]
fn a_process_that_opened_a_file_twice_is_not_in_its_own_way() {
    let rig = rig_with_file();
    let host = open_on_host(&rig);
    let (mut client, root) = rig.attached();
    let first = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    let second = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    assert_eq!(client.lock(first, READ, 0, 10, 7).unwrap(), GRANTED);
    assert_eq!(client.lock(second, WRITE, 0, 10, 7).unwrap(), GRANTED);
    assert!(host_lock(&host, libc::F_RDLCK, 0, 1).is_err());
    assert_eq!(client.lock(first, UNLOCK, 0, 0, 7).unwrap(), GRANTED);
    host_lock(&host, libc::F_WRLCK, 0, 0).unwrap();
}

#[test]
fn two_processes_of_one_guest_share_a_read_lock_until_both_let_go() {
    let rig = rig_with_file();
    let host = open_on_host(&rig);
    let (mut client, root) = rig.attached();
    let first = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    let second = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    assert_eq!(client.lock(first, READ, 0, 10, 7).unwrap(), GRANTED);
    assert_eq!(client.lock(second, READ, 5, 10, 8).unwrap(), GRANTED);
    assert_eq!(client.lock(first, WRITE, 0, 10, 7).unwrap(), BLOCKED);
    assert_eq!(client.lock(first, UNLOCK, 0, 0, 7).unwrap(), GRANTED);
    assert!(host_lock(&host, libc::F_WRLCK, 5, 1).is_err());
    host_lock(&host, libc::F_WRLCK, 0, 5).unwrap();
    client.clunk(second).unwrap();
    host_lock(&host, libc::F_WRLCK, 0, 0).unwrap();
}

#[test]
fn the_end_of_a_fid_or_connection_gives_its_locks_back() {
    let rig = rig_with_file();
    let host = open_on_host(&rig);
    let (mut client, root) = rig.attached();
    let f = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    assert_eq!(client.lock(f, WRITE, 0, 0, 1).unwrap(), GRANTED);
    client.clunk(f).unwrap();
    host_lock(&host, libc::F_WRLCK, 0, 0).unwrap();
    host_lock(&host, libc::F_UNLCK, 0, 0).unwrap();

    let (stream, end) = rig.raw_connection();
    let mut client = crate::client::Client::new(stream, crate::rig::MSIZE);
    let root = client.attach("share");
    let f = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    assert_eq!(client.lock(f, WRITE, 0, 0, 1).unwrap(), GRANTED);
    drop(client);
    rig.block_on(end).unwrap().unwrap();
    host_lock(&host, libc::F_WRLCK, 0, 0).unwrap();
    drop(host);
    assert_eq!(open_below(&rig.path("f")), 0, "no lock file stays open");
}

#[test]
fn a_directory_is_locked_as_flock_does() {
    let rig = Rig::new();
    let host = File::open(rig.dir.path()).unwrap();
    let (mut client, root) = rig.attached();
    let dir = client.open_at(root, &[], OpenFlags::DIRECTORY).unwrap();
    assert_eq!(client.lock(dir, WRITE, 0, 0, 1).unwrap(), GRANTED);
    assert!(matches!(host.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
    assert_eq!(client.lock(dir, UNLOCK, 0, 0, 1).unwrap(), GRANTED);
    host.lock().unwrap();
    assert_eq!(client.lock(dir, READ, 0, 0, 1).unwrap(), BLOCKED);
}

#[test]
fn what_cannot_be_locked_is_refused() {
    let rig = rig_with_file();
    let (mut client, root) = rig.attached();
    let f = client.walk(root, &["f"]).unwrap();
    assert_eq!(client.lock(f, READ, 0, 0, 1).unwrap_err(), libc::EBADF);
    client.open(f, OpenFlags::READ_WRITE).unwrap();
    assert_eq!(client.lock(f, 3, 0, 0, 1).unwrap_err(), libc::EINVAL);
    assert_eq!(client.lock(f, READ, u64::MAX, 1, 1).unwrap_err(), libc::EINVAL);
    assert_eq!(
        client.lock(f, READ, i64::MAX as u64, 2, 1).unwrap_err(),
        libc::EOVERFLOW
    );
    assert_eq!(
        client.lock(f, UNLOCK, 5, 1, 1).unwrap(),
        GRANTED,
        "nothing was locked"
    );
}
