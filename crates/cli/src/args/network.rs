//! The network of a container in a VM.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
};

use clap::Args;
use cofferdam_qemu::{Forward, Protocol};

/// What of `docker run` says what a container can reach, and what reaches it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// What the container can reach. user: what this process can, this host's own loopback as 10.0.2.2 among it; none: nothing
    /// but itself; ns:PATH: it takes the place of the interfaces in that network namespace, which somebody else has made
    /// (`ip netns`, CNI). Default: user for an image and where ports are published, none for a bundle.
    #[arg(long, value_name = "none|user|ns:PATH", value_parser = kind)]
    pub(crate) network: Option<NetworkKind>,

    /// Let a port of this host lead to one of the container: `[IP:]HOSTPORT:PORT[/tcp|udp]`, ranges of equal length too. IP is
    /// one of this host's IPv4 addresses; all of them without it.
    #[arg(short, long, value_name = "PORTS", value_parser = published)]
    pub(crate) publish: Vec<Published>,

    /// A name server, instead of this host's own.
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<IpAddr>,

    /// A domain in which names are looked up.
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    pub(crate) dns_search: Vec<String>,
}

/// What a container can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkKind {
    /// No adapter.
    None,
    /// QEMU's own network.
    User,
    /// That of the interfaces in a network namespace.
    Namespace(PathBuf),
}

fn kind(text: &str) -> Result<NetworkKind, String> {
    match (text, text.strip_prefix("ns:")) {
        ("none", _) => Ok(NetworkKind::None),
        ("user", _) => Ok(NetworkKind::User),
        (_, Some(path)) if !path.is_empty() => Ok(NetworkKind::Namespace(path.into())),
        _ => Err("there are none, user and ns:PATH, a network namespace".to_owned()),
    }
}

impl NetworkArgs {
    /// The option that needs a network, if one is given.
    pub(crate) fn needs(&self) -> Option<&'static str> {
        let given = [
            ("--publish", !self.publish.is_empty()),
            ("--dns", !self.dns.is_empty()),
            ("--dns-search", !self.dns_search.is_empty()),
        ];
        given
            .into_iter()
            .find_map(|(option, given)| given.then_some(option))
    }
}

/// The ports of one option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published(pub(crate) Vec<Forward>);

/// Most ports of one option: each is a listener of QEMU's.
const MOST: usize = 1024;

/// docker's `[IP:]HOSTPORT:PORT[/PROTOCOL]`.
pub(super) fn published(text: &str) -> Result<Published, String> {
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next().unwrap_or(text), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => return Err(format!("`{other}` is no protocol here; there are tcp and udp")),
    };
    let Some((rest, guest)) = ports.rsplit_once(':') else {
        return Err(format!(
            "which port of this host leads there? As in `8080:{ports}`; none is chosen by itself"
        ));
    };
    let (host, wanted) = match rest.rsplit_once(':') {
        Some((host, wanted)) => (address(host)?, wanted),
        None => (Ipv4Addr::UNSPECIFIED, rest),
    };
    if wanted.is_empty() {
        return Err(format!(
            "`{text}` names no port of this host, and none is chosen by itself"
        ));
    }
    let (wanted, guest) = (range(wanted)?, range(guest)?);
    let (here, there) = (wanted.len(), guest.len());
    if here != there {
        return Err(format!(
            "{here} ports of this host cannot lead to {there} of the container"
        ));
    }
    if here > MOST {
        return Err(format!("{here} ports at once are more than {MOST}"));
    }
    let forwards = wanted.zip(guest).map(|(wanted, guest_port)| Forward {
        protocol,
        host: SocketAddr::new(host.into(), wanted),
        guest_port,
    });
    Ok(Published(forwards.collect()))
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(_)) => Err(format!("{bare}: ports are published on IPv4 addresses only")),
        Err(_) => Err(format!("`{text}` is no IP address of this host")),
    }
}

/// A port, or the first and the last of several.
fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| match text.parse::<u16>() {
        // u16's own parser takes a sign.
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(format!("`{text}` is no port; ports are 1 to 65535")),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the ports {first} to {last} are in the wrong order"));
    }
    Ok(first..=last)
}

fn domain(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=253).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a domain has 1 to 253 letters, digits, `-`, `_` and `.`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let Published(forwards) = published(text)?;
        Ok(forwards
            .iter()
            .map(|forward| format!("{forward} {}", forward.guest_port))
            .collect())
    }

    #[test]
    fn ports_are_published_in_dockers_words() {
        let one = |text: &str| shown(text).map(|list| list.join(", "));
        assert_eq!(one("8080:80").as_deref(), Ok("0.0.0.0:8080/tcp 80"));
        assert_eq!(
            one("127.0.0.1:8080:80/tcp").as_deref(),
            Ok("127.0.0.1:8080/tcp 80")
        );
        assert_eq!(one("5353:53/udp").as_deref(), Ok("0.0.0.0:5353/udp 53"));
        assert_eq!(
            one("127.0.0.1:8000-8001:90-91/udp").as_deref(),
            Ok("127.0.0.1:8000/udp 90, 127.0.0.1:8001/udp 91")
        );
    }

    #[test]
    fn what_cannot_be_published_is_refused_with_the_reason() {
        for (text, reason) in [
            ("80", "As in `8080:80`"),
            ("127.0.0.1::80", "names no port of this host"),
            ("0:80", "`0` is no port"),
            ("65536:80", "`65536` is no port"),
            ("+80:80", "`+80` is no port"),
            (":80", "names no port"),
            ("80:", "`` is no port"),
            ("80:80/sctp", "`sctp` is no protocol"),
            ("80:80/tcp/udp", "is no protocol"),
            ("[::1]:80:80", "IPv4 addresses only"),
            ("localhost:80:80", "`localhost` is no IP address"),
            ("8000-8002:80-81", "3 ports of this host cannot lead to 2"),
            ("81-80:1-2", "wrong order"),
            ("1-2000:1-2000", "more than 1024"),
        ] {
            let refused = published(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn kinds_are_named_or_lead_to_a_namespace() {
        assert_eq!(kind("none"), Ok(NetworkKind::None));
        assert_eq!(kind("user"), Ok(NetworkKind::User));
        let namespace = NetworkKind::Namespace("/run/netns/pod".into());
        assert_eq!(kind("ns:/run/netns/pod"), Ok(namespace));
        for bad in ["", "ns:", "host", "bridge"] {
            assert!(kind(bad).unwrap_err().contains("ns:PATH"), "{bad}");
        }
    }

    #[test]
    fn domains_hold_no_further_lines() {
        assert!(domain("example.test").is_ok());
        for bad in ["", "a b", "a\nnameserver 1.2.3.4"] {
            assert!(domain(bad).is_err(), "{bad:?}");
        }
    }
}
