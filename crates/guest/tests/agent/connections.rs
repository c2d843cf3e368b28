//! Connections led into the VM: the agent's own program `connect`, as a process of the VM's.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use crate::agent::{Agent, command};

const LIMIT: Duration = Duration::from_secs(30);

/// A connection's streams, and its process.
struct Led {
    input: UnixStream,
    output: UnixStream,
    errors: UnixStream,
    pid: u32,
}

fn led(agent: &mut Agent, addresses: &[String]) -> Led {
    let mut words = vec!["/proc/self/exe", "connect"];
    words.extend(addresses.iter().map(String::as_str));
    let (pid, streams) = agent.execute(command(&words), [true; 3]);
    let [input, output, errors] = streams.map(|stream| {
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    });
    Led {
        input,
        output,
        errors,
        pid,
    }
}

impl Led {
    /// What it says went wrong, to the end.
    fn complaint(&mut self) -> String {
        let mut text = String::new();
        self.errors.read_to_string(&mut text).unwrap();
        text
    }
}

fn service() -> (TcpListener, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, vec![address])
}

fn accepted(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * n / 251) as u8).collect()
}

#[test]
fn megabytes_go_both_ways_at_once_and_ends_pass_in_both_directions() {
    let mut agent = Agent::ready();
    let (listener, addresses) = service();
    let mut led = led(&mut agent, &addresses);
    let (question, answer) = (pattern(5_000_000), pattern(7_000_000));
    let (asked, answered) = (question.clone(), answer.clone());
    let serving = thread::spawn(move || {
        let mut stream = accepted(&listener);
        let mut writing = stream.try_clone().unwrap();
        let sending = thread::spawn(move || writing.write_all(&answered).unwrap());
        let mut got = Vec::new();
        // Only the end that was passed on ends this.
        stream.read_to_end(&mut got).unwrap();
        assert!(got == asked);
        sending.join().unwrap();
        stream.write_all(b", and that was all").unwrap();
    });
    let mut input = led.input.try_clone().unwrap();
    let sending = thread::spawn(move || {
        input.write_all(&question).unwrap();
        input.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    led.output.read_to_end(&mut got).unwrap();
    assert!(got == [answer.as_slice(), b", and that was all"].concat());
    sending.join().unwrap();
    serving.join().unwrap();
    drop(led.output);
    assert_eq!(agent.wait(led.pid), 0);
    let mut words = String::new();
    led.errors.read_to_string(&mut words).unwrap();
    assert_eq!(words, "");
}

#[test]
fn the_services_end_is_passed_on_while_the_other_direction_goes_on() {
    let mut agent = Agent::ready();
    let (listener, addresses) = service();
    let mut led = led(&mut agent, &addresses);
    let mut stream = accepted(&listener);
    stream.write_all(b"bye").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut words = String::new();
    led.output.read_to_string(&mut words).unwrap();
    assert_eq!(words, "bye");
    led.input.write_all(b"not yet").unwrap();
    led.input.shutdown(Shutdown::Write).unwrap();
    words.clear();
    stream.read_to_string(&mut words).unwrap();
    assert_eq!(words, "not yet");
    drop(led.output);
    assert_eq!(agent.wait(led.pid), 0);
}

#[test]
fn the_addresses_are_tried_in_turn_and_a_refusal_names_each() {
    let mut agent = Agent::ready();
    let (listener, addresses) = service();
    let (closed, nobody) = service();
    drop(closed);
    let both = [nobody.clone(), addresses].concat();
    let mut first = led(&mut agent, &both);
    accepted(&listener).write_all(b"here").unwrap();
    let mut words = String::new();
    first.output.read_to_string(&mut words).unwrap();
    assert_eq!(words, "here");

    let mut refused = led(&mut agent, &nobody);
    let complaint = refused.complaint();
    assert!(
        complaint.starts_with(&format!("{}: Connection refused", nobody[0])),
        "{complaint}"
    );
    // It is said before the output ends, and the output ends once it has been taken.
    refused.output.set_nonblocking(true).unwrap();
    let early = refused.output.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    let Led {
        mut output,
        errors,
        pid,
        ..
    } = refused;
    drop(errors);
    output.set_nonblocking(false).unwrap();
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
    assert_eq!(agent.wait(pid), 1);

    for (words, expected) in [("here:80", "here:80: it is not ADDRESS:PORT"), ("", "")] {
        let addresses: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        let complaint = led(&mut agent, &addresses).complaint();
        let expected = if expected.is_empty() {
            "no address is given"
        } else {
            expected
        };
        assert_eq!(complaint, expected);
    }
}

#[test]
fn a_reset_is_a_failure_after_every_byte_that_came_before_it() {
    let mut agent = Agent::ready();
    let (listener, addresses) = service();
    let mut led = led(&mut agent, &addresses);
    let mut stream = accepted(&listener);
    stream.write_all(b"before").unwrap();
    let mut words = [0; 6];
    led.output.read_exact(&mut words).unwrap();
    // Closed with bytes that it has not read.
    led.input.write_all(b"unread").unwrap();
    stream.peek(&mut [0]).unwrap();
    drop(stream);
    let complaint = led.complaint();
    assert!(complaint.starts_with("Connection reset"), "{complaint}");
    assert_eq!(&words, b"before");
    drop(led.errors);
    assert_eq!(agent.wait(led.pid), 1);
}

#[test]
fn a_host_that_lets_go_resets_the_service() {
    let mut agent = Agent::ready();
    let (listener, addresses) = service();
    let led = led(&mut agent, &addresses);
    let mut stream = accepted(&listener);
    let pid = led.pid;
    drop(led);
    let ended = stream.read(&mut [0]);
    let reset = ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(reset, "an end would be taken for the client's");
    assert_eq!(agent.wait(pid), 1);
}
