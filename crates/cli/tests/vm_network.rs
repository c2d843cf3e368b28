//! The network of containers in real VMs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;
mod picture;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bundle::{copy_programs, output_of};
use picture::{IMAGE, Picture, said};
use serde_json::json;

/// The host's busybox, linked without libraries, as a single file of the host's.
const BUSYBOX: [&str; 2] = ["-v", "/usr/bin/busybox:/bin/busybox:ro"];
/// A VM boots, and under emulation slowly.
const LIMIT: Duration = Duration::from_secs(60);

fn picture() -> Picture {
    assert!(
        fs::metadata("/usr/bin/busybox").is_ok(),
        "no /usr/bin/busybox: cargo xtask setup"
    );
    Picture::in_vm(json!({}))
}

/// A run that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of this host that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Asks until there is an answer: the container has to boot and to listen first.
fn answer(run: &mut Killed, ask: impl Fn() -> std::io::Result<String>) -> String {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(text) if !text.is_empty() => return text,
            result if start.elapsed() > LIMIT || run.0.try_wait().unwrap().is_some() => {
                panic!("no answer: {result:?}")
            }
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_container_has_an_address_a_way_out_and_a_name_server() {
    let picture = picture();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = String::new();
        stream.write_all(b"from the host\n").unwrap();
        stream.read_to_string(&mut heard).unwrap();
        heard
    });
    let script = format!(
        "busybox ip -o addr | busybox awk '$3 == \"inet\" {{ print $2, $4 }}'; busybox ip route; cat /etc/resolv.conf; \
         busybox ip -6 route show default; cat /sys/class/net/eth0/mtu; \
         echo from the guest | busybox nc 10.0.2.2 {port}"
    );
    let options = [&BUSYBOX, ["--dns-search", "a.test"].as_slice()].concat();
    let expected = "lo 127.0.0.1/8\neth0 10.0.2.15/24\ndefault via 10.0.2.2 dev eth0 \n\
                    10.0.2.0/24 dev eth0 scope link  src 10.0.2.15 \nsearch a.test\nnameserver 10.0.2.3\n1500\nfrom the host\n";
    assert_eq!(output_of(&picture.script(&options, &script), 0), expected);
    assert_eq!(server.join().unwrap(), "from the guest\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn published_ports_lead_into_the_container_also_below_1024_and_for_other_users() {
    let picture = picture();
    let (web, echo) = (free_port(), free_port());
    let (publish, datagrams) = (format!("127.0.0.1:{web}:80"), format!("127.0.0.1:{echo}:53/udp"));
    let options = [
        &BUSYBOX,
        [
            "-u",
            "web",
            "--tmpfs",
            "/tmp",
            "-v",
            "./perl:/perl:ro",
            "-p",
            &publish,
            "-p",
            &datagrams,
        ]
        .as_slice(),
    ]
    .concat();
    // The host's busybox has nothing that answers datagrams.
    copy_programs(&picture.path("perl"), &["/usr/bin/perl"]);
    let echoing = r#"socket(S, 2, 2, 17); bind(S, pack("Sna4x8", 2, 53, "\0\0\0\0")) or die "port 53: $!";
        while ($from = recv(S, $heard, 99, 0)) { send(S, $heard, 0, $from) }"#;
    let script = format!(
        "cd /tmp && echo of the container > index.html && busybox httpd -p 80 && \
         LD_LIBRARY_PATH=$(echo /perl/lib/*-linux-gnu) exec /perl/usr/bin/perl -e '{echoing}'"
    );
    let child = picture
        .command()
        .args(options)
        .args([IMAGE, "/bin/sh", "-c", &script])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let got = answer(&mut child, || {
        let mut stream = TcpStream::connect(("127.0.0.1", web))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    assert!(got.ends_with("\r\n\r\nof the container\n"), "{got}");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", echo)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let got = answer(&mut child, || {
        socket.send(b"datagram")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    assert_eq!(got, "datagram");
    drop(child);
    // The VM goes with its owner, and the ports with the VM.
    let start = Instant::now();
    while TcpListener::bind(("127.0.0.1", web)).is_err() {
        assert!(start.elapsed() < LIMIT, "the port is still held");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(picture.repair().status.success());
    assert_eq!(picture.left(), Vec::<String>::new());
}

/// A network namespace with an interface whose other end is ours. It goes with this value.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("cofferdam-run-{}", std::process::id());
        let (pod, here) = (Self(name.clone()), format!("cdr{}", std::process::id()));
        for words in [
            format!("netns add {name}"),
            format!("link add name {here} type veth peer name eth0 netns {name}"),
            format!("addr add 10.98.0.1/24 dev {here}"),
            format!("link set {here} up"),
            format!("-n {name} addr add 10.98.0.2/24 dev eth0"),
            format!("-n {name} link set eth0 mtu 1400 up"),
            format!("-n {name} route add default via 10.98.0.1"),
        ] {
            let output = Command::new("ip").args(words.split(' ')).output().unwrap();
            assert!(output.status.success(), "ip {words}: {output:?}");
        }
        pod
    }

    fn queues(&self) -> String {
        let mut command = Command::new("ip");
        let output = command
            .args(["netns", "exec", &self.0, "tc", "qdisc"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_container_takes_the_place_of_the_interface_of_a_network_namespace() {
    let (picture, namespace) = (picture(), Namespace::new());
    let before = namespace.queues();
    let listener = TcpListener::bind("10.98.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        // More than a packet, and more than a queue of them.
        stream.write_all(&[b'x'; 1 << 20]).unwrap();
        from.ip().to_string()
    });
    let network = format!("ns:/run/netns/{}", namespace.0);
    let options = [
        &BUSYBOX,
        ["--network", &network, "--dns", "192.0.2.53"].as_slice(),
    ]
    .concat();
    let script = format!(
        "busybox ip -o -4 addr show eth0 | busybox awk '{{ print $4 }}'; busybox ip route; cat /sys/class/net/eth0/mtu \
         /etc/resolv.conf; busybox nc 10.98.0.1 {port} < /dev/null | busybox wc -c"
    );
    let expected = "10.98.0.2/24\ndefault via 10.98.0.1 dev eth0 \n10.98.0.0/24 dev eth0 scope link  src 10.98.0.2 \n\
                    1400\nnameserver 192.0.2.53\n1048576\n";
    let run = picture.script(&options, &script);
    assert_eq!(output_of(&run, 0), expected);
    assert_eq!(server.join().unwrap(), "10.98.0.2");
    assert_eq!(namespace.queues(), before);
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn without_a_network_there_is_only_the_loopback_and_the_images_own_file() {
    let picture = picture();
    let options = [&BUSYBOX, ["--network", "none"].as_slice()].concat();
    let script = "busybox ip -o link | busybox awk '{ print $2 }'; test -e /etc/resolv.conf || echo none; \
                  busybox nc 10.0.2.2 9 < /dev/null || echo unreachable";
    let run = picture.script(&options, script);
    assert_eq!(output_of(&run, 0), "lo:\nnone\nunreachable\n");
    assert!(said(&run).contains("Network is unreachable"), "{}", said(&run));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_resolv_conf_of_the_users_own_stays() {
    let picture = picture();
    fs::write(picture.path("own"), "nameserver 192.0.2.1\n").unwrap();
    let run = picture.script(&["-v", "./own:/etc/resolv.conf:ro"], "cat /etc/resolv.conf");
    assert_eq!(output_of(&run, 0), "nameserver 192.0.2.1\n");
    let run = picture.script(&["--read-only", "--dns", "192.0.2.9"], "cat /etc/resolv.conf");
    assert_eq!(output_of(&run, 0), "nameserver 192.0.2.9\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_port_that_is_taken_is_named_and_nothing_is_left() {
    let picture = picture();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let run = picture.script(&["-p", &format!("127.0.0.1:{port}:80")], "true");
    output_of(&run, 125);
    let expected = format!("publish 127.0.0.1:{port}/tcp: the port is taken: Address already in use");
    assert!(said(&run).contains(&expected), "{}", said(&run));
}
