//! Containers and their devices for people.

use cofferdam_explain::columns;
use cofferdam_observe::{Device, Holder};

use super::Inspected;

const NONE: &str = "-";

/// One part a container: what it is, and who holds which device.
pub(super) fn render(all: &[Inspected]) -> String {
    let parts: Vec<_> = all.iter().map(part).collect();
    parts.join("\n")
}

fn part(inspected: &Inspected) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| [name.to_owned(), value]));
    };
    let status = match inspected.exit_status {
        Some(exit) => format!("{} ({exit})", inspected.status),
        None => inspected.status.clone(),
    };
    line("ID", Some(inspected.id.clone()));
    line("STATUS", Some(status));
    line("NOTE", inspected.note.clone());
    line("CREATED", inspected.created_at.clone());
    line("STARTED", inspected.started_at.clone());
    line("FINISHED", inspected.finished_at.clone());
    line("IMAGE", inspected.image.clone());
    line("BUNDLE", inspected.bundle.clone());
    let process = |process: super::document::Process| match process.alive {
        true => process.pid.to_string(),
        false => format!("{} (gone)", process.pid),
    };
    line("OWNER", inspected.owner.map(process));
    line("HYPERVISOR", inspected.hypervisor.map(process));
    let network = inspected.network.as_ref();
    let kind = network.and_then(|network| network["kind"].as_str());
    line("NETWORK", kind.map(str::to_owned));
    line("LOG", inspected.log_path.clone());
    for (name, value) in &inspected.annotations {
        line("ANNOTATION", Some(format!("{name}={value}")));
    }
    for (id, exec) in &inspected.execs {
        line("PROCESS", Some(format!("{id}: {}", exec.status)));
    }
    for container in &inspected.containers {
        line(
            "CONTAINER",
            Some(format!("{}: {}", container.id, container.init.status)),
        );
    }
    let mut text = columns::render(&lines);
    if let (Some(scsi), Some(vpmem)) = (inspected.scsi, inspected.vpmem) {
        text.push('\n');
        text.push_str(&devices(&inspected.devices));
        text.push_str(&format!(
            "\nUsed: {} of {} SCSI disks, {} of {} VPMEM devices\n",
            scsi.used, scsi.total, vpmem.used, vpmem.total
        ));
    }
    text
}

/// One line for each mount of each device.
fn devices(devices: &[Device]) -> String {
    let headings = [
        "DEVICE",
        "HOST PATH",
        "GUEST PATH",
        "RIGHTS",
        "STATE",
        "HELD",
        "HELD BY",
    ];
    let mut lines = vec![headings.map(str::to_owned)];
    for device in devices {
        let host_path = match (&device.host_path, &device.allowed_names) {
            (Some(path), Some(names)) => format!("{path}: {}", names.join(", ")),
            (Some(path), None) => path.clone(),
            (None, _) => NONE.to_owned(),
        };
        let line = |guest_path: &str, read_only: Option<bool>, state: &str, held: usize| {
            let rights = match read_only {
                Some(true) if device.verity == Some(true) => "ro, verity",
                Some(true) => "ro",
                Some(false) => "rw",
                None => NONE,
            };
            let here = |holder: &&Holder| guest_path == NONE || holder.guest_path == guest_path;
            let holders = device.held_by.iter().filter(here);
            let names: Vec<_> = holders
                .map(|holder| format!("{}: {}", holder.container, holder.item))
                .collect();
            [
                device.device.clone(),
                host_path.clone(),
                guest_path.to_owned(),
                rights.to_owned(),
                state.to_owned(),
                held.to_string(),
                match names.is_empty() {
                    true => NONE.to_owned(),
                    false => names.join("; "),
                },
            ]
        };
        if device.mounts.is_empty() {
            lines.push(line(NONE, device.read_only, &device.state, device.references));
        }
        for mount in &device.mounts {
            let state = match device.state.as_str() {
                "attached" => &mount.state,
                on_its_way => on_its_way,
            };
            lines.push(line(
                &mount.guest_path,
                Some(mount.read_only),
                state,
                mount.references,
            ));
        }
    }
    columns::render(&lines)
}
