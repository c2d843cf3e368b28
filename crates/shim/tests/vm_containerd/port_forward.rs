//! Port-forward through the CRI plugin, as a kubelet asks for it: over a web socket, which has a channel for a port's bytes
//! and one for what went wrong.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sha2::{Digest as _, Sha256};
use tungstenite::{Bytes, Message, WebSocket, client::IntoClientRequest as _};

use crate::{
    cri::{PortForward, PortForwardResponse},
    daemon::{SOON, eventually},
    pods::{Bridge, Scene, config},
};

const PROTOCOL: &str = "v4.channel.k8s.io";
/// The channels of the only port.
const DATA: u8 = 0;
const ERRORS: u8 = 1;
/// Bytes of a message to the plugin.
const PIECE: usize = 64 << 10;

/// What a forwarded connection brought.
struct Answer {
    data: Vec<u8>,
    errors: String,
}

/// Sends `question` to a port of the pod, and reads until the connection is over.
fn asked(scene: &Scene, sandbox: &str, port: u16, question: &[u8]) -> Answer {
    let request = PortForward {
        sandbox: sandbox.to_owned(),
        ports: vec![port.into()],
    };
    let told: PortForwardResponse = scene.cri.call("PortForward", request).unwrap();
    let mut socket = opened(&told.url);
    // Each channel begins with the port's number.
    for channel in [DATA, ERRORS] {
        let [low, high] = port.to_le_bytes();
        assert_eq!(next(&mut socket).unwrap(), (channel, vec![low, high]));
    }
    for piece in question.chunks(PIECE) {
        let message = [&[DATA], piece].concat();
        socket.send(Message::Binary(Bytes::from(message))).unwrap();
    }
    let (mut data, mut errors) = (Vec::new(), Vec::new());
    while let Some((channel, bytes)) = next(&mut socket) {
        match channel {
            DATA => data.extend(bytes),
            ERRORS => errors.extend(bytes),
            other => panic!("channel {other}"),
        }
    }
    Answer {
        data,
        errors: String::from_utf8(errors).unwrap(),
    }
}

fn opened(url: &str) -> WebSocket<TcpStream> {
    let rest = url.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(rest.split('/').next().unwrap()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut request = format!("ws://{rest}").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", PROTOCOL.parse().unwrap());
    tungstenite::client(request, stream).unwrap().0
}

/// The next message's channel and bytes, until the plugin closes.
fn next(socket: &mut WebSocket<TcpStream>) -> Option<(u8, Vec<u8>)> {
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => return Some((bytes[0], bytes[1..].to_vec())),
            Ok(Message::Close(_)) => return None,
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The body of an answer that must have succeeded.
#[track_caller]
fn body(answer: &Answer) -> &[u8] {
    assert_eq!(answer.errors, "");
    let head = answer.data.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let length = head.map_or(answer.data.len(), |head| head + 4);
    let (head, body) = answer.data.split_at(length);
    let head = String::from_utf8_lossy(head);
    assert!(
        head.contains(" 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    body
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.0\r\n\r\n").into_bytes()
}

fn post(path: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    [head.as_bytes(), content].concat()
}

/// Two services that only the pod itself can reach, one for each version of IP.
const SERVICES: &str = r#"
    busybox mkdir -p /srv/cgi-bin
    busybox head -c 5000000 /dev/urandom > /srv/large
    {
        echo '#!/bin/sh'
        echo 'printf "Content-Type: text/plain\r\n\r\n"; busybox head -c $CONTENT_LENGTH | sha256sum'
    } > /srv/cgi-bin/sum
    busybox chmod 755 /srv/cgi-bin/sum
    httpd -p 127.0.0.1:8080 -h /srv
    echo six > /srv/six
    exec httpd -f -p '[::1]:8081' -h /srv
"#;

/// Does something in a network namespace, on a thread of its own.
fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        inside.join().unwrap()
    })
}

/// Dials as the plugin does.
fn dialled(namespace: &File, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    inside(namespace, || {
        TcpStream::connect_timeout(&address, Duration::from_secs(10))
    })
}

fn network_of(scene: &Scene, sandbox: &str) -> File {
    let bundle = scene
        .containerd
        .path("state")
        .join("io.containerd.runtime.v2.task/k8s.io")
        .join(sandbox);
    let spec: serde_json::Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
    let network = namespaces
        .iter()
        .find(|namespace| namespace["type"] == "network")
        .unwrap();
    File::open(Path::new(network["path"].as_str().unwrap())).unwrap()
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn port_forward_reaches_what_listens_only_on_the_pods_loopback() {
    let _bridge = Bridge("cofferdam-t3");
    let scene = Scene::new("cofferdam-t3", "10.88.74.0/24");
    let sandbox = scene.sandbox();
    let serving = scene.container(&sandbox, config("serving", SERVICES));
    let network = network_of(&scene, &sandbox);
    eventually("both serve", || {
        let (listing, _) = scene.exec(&serving, "cat /srv/six /proc/net/tcp /proc/net/tcp6");
        listing.contains(":1F90 ") && listing.contains(":1F91 ")
    });

    let (large, _) = scene.exec(&serving, "sha256sum /srv/large");
    let large = large.split(' ').next().unwrap();
    let question: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    // Both at once.
    thread::scope(|scope| {
        let getting = scope.spawn(|| asked(&scene, &sandbox, 8080, &get("/large")));
        let posting = asked(&scene, &sandbox, 8080, &post("/cgi-bin/sum", &question));
        let summed = String::from_utf8_lossy(body(&posting)).into_owned();
        assert_eq!(summed.split(' ').next().unwrap(), sum(&question));
        let got = getting.join().unwrap();
        assert_eq!(body(&got).len(), 5_000_000);
        assert_eq!(sum(body(&got)), large);
    });
    // The plugin dials 127.0.0.1 only, as far as it can tell with success.
    let six = asked(&scene, &sandbox, 8081, &get("/six"));
    assert_eq!(body(&six), b"six\n");
    let nobody = asked(&scene, &sandbox, 9, b"");
    assert_eq!(nobody.data, b"");
    assert!(
        nobody.errors.contains("connection reset by peer"),
        "{}",
        nobody.errors
    );
    assert!(
        scene
            .containerd
            .last_words()
            .contains("127.0.0.1:9: Connection refused"),
        "{}",
        scene.containerd.last_words()
    );

    // An end passes through: the service has all of the question only then.
    let mut half = dialled(&network, "[::1]:8081").unwrap();
    half.write_all(&get("/six")).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nsix\n"), "{answer}");

    scene.do_with("StopPodSandbox", &sandbox);
    scene.do_with("RemovePodSandbox", &sandbox);
    scene.containerd.assert_nothing_left();
    // The namespace is there as long as this test has it open, though its plugins took it down; nobody listens in it any more.
    let up = inside(&network, || {
        let mut command = Command::new("ip");
        command.args(["link", "set", "lo", "up"]).status().unwrap()
    });
    assert!(up.success());
    let refused = dialled(&network, "127.0.0.1:8080").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_killed_shim_leaves_neither_the_loopback_addresses_nor_the_interfaces_taken() {
    let _bridge = Bridge("cofferdam-t4");
    let scene = Scene::new("cofferdam-t4", "10.88.75.0/24");
    let sandbox = scene.sandbox();
    let network = network_of(&scene, &sandbox);
    let queues = || {
        let shown = inside(&network, || {
            Command::new("tc").args(["qdisc", "show"]).output().unwrap()
        });
        String::from_utf8(shown.stdout).unwrap()
    };
    // Nobody serves there; that it is taken shows in what happens then.
    let taken = dialled(&network, "127.0.0.1:9")
        .unwrap()
        .read(&mut [0])
        .unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::ConnectionReset);
    assert!(queues().contains("ingress"), "{}", queues());

    scene.containerd.kill("containerd-shim");
    eventually("the interface has its place back", || {
        !queues().contains("ingress")
    });
    let refused = dialled(&network, "127.0.0.1:9").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    scene.do_with("StopPodSandbox", &sandbox);
    scene.do_with("RemovePodSandbox", &sandbox);
    scene.containerd.assert_nothing_left();
}
