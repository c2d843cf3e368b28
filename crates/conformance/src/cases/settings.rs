//! ModifySettings (§7), as far as it can be tried without devices: what is not there is refused, in time and with
//! nothing left; removing what is not there is no error where the protocol says so.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    case::{Case, Need, Outcome, Stop, ensure},
    context::{Context, OUT},
    frame::{VM, code, word},
    reply::Reply,
};

pub(super) const CASES: &[Case] = &[
    Case::new("settings/disk-that-is-not-there", "7.1", &[], disk),
    Case::new("settings/scsi-device-removal", "7.2", &[], scsi_device),
    Case::new("settings/persistent-memory-that-is-not-there", "7.3", &[], vpmem),
    Case::new("settings/layers-that-are-not-there", "7.4", &[], layers),
    Case::new(
        "settings/layers-combined",
        "7.4",
        &[Need::Container],
        layers_combined,
    ),
    Case::new("settings/share-nobody-serves", "7.5", &[], share),
    Case::new("settings/share-whose-server-goes", "7.5", &[], share_broken),
    Case::new("settings/adapter-that-is-not-there", "7.6", &[], adapter),
    Case::new("settings/pci-device-that-is-not-there", "7.7", &[], pci_device),
    Case::new("settings/constraints-of-no-container", "7.7", &[], constraints),
    Case::new("settings/unknown-resource", "7", &[], unknown_resource),
    Case::new("settings/unknown-request-type", "7", &[], unknown_request_type),
    Case::new("settings/no-request-type-is-add", "7", &[], no_request_type),
    Case::new("settings/request-is-an-object", "7", &[], request_is_an_object),
];

/// What a device that does not come may be waited for: the original waits 4 or 5 seconds.
const DEVICE_LIMIT: Duration = Duration::from_secs(15);
const PLACE: &str = "/run/gcs/c/conformance";

fn modify(ctx: &mut Context<'_>, kind: &str, resource: &str, settings: Value) -> Outcome<Reply> {
    let request = json!({"RequestType": kind, "ResourceType": resource, "Settings": settings});
    let id = ctx.send(VM, word::MODIFY_SETTINGS, json!({"Request": request}));
    let limit = ctx.session.limit() + DEVICE_LIMIT;
    ctx.session.answer_within(id, limit)
}

/// Every member that can be zero is left out: LUN 0 of controller 0 must be understood, not missed.
fn disk(ctx: &mut Context<'_>) -> Outcome {
    let path = format!("{PLACE}/m0");
    let far = json!({"MountPath": path, "Controller": 3, "Lun": 62});
    modify(ctx, "Add", "MappedVirtualDisk", far)?.fails(&[])?;
    modify(ctx, "Remove", "MappedVirtualDisk", json!({"MountPath": path}))?
        .ok()
        .map(drop)
}

/// Only Remove; a missing device is success. An older agent does not know the resource.
fn scsi_device(ctx: &mut Context<'_>) -> Outcome {
    for _ in 0..2 {
        let reply = modify(ctx, "Remove", "SCSIDevice", json!({"Controller": 3, "Lun": 62}))?;
        if reply.result != 0 && !ctx.can("DeleteContainerStateSupported") {
            reply.fails(&[])?;
            return Err(Stop::NotTried("the agent is of the age before SCSIDevice".into()));
        }
        reply.ok()?;
    }
    modify(ctx, "Add", "SCSIDevice", json!({"Controller": 3, "Lun": 62}))?.fails(&[])
}

fn vpmem(ctx: &mut Context<'_>) -> Outcome {
    let settings = json!({"DeviceNumber": 127, "MountPath": "/tmp/conformance-p127"});
    modify(ctx, "Add", "VPMemDevice", settings.clone())?.fails(&[])?;
    modify(ctx, "Remove", "VPMemDevice", settings)?.ok().map(drop)
}

fn layers(ctx: &mut Context<'_>) -> Outcome {
    let settings = json!({
        "ContainerRootPath": format!("{PLACE}/rootfs"),
        "Layers": [{"Path": "/tmp/conformance-no-layer-1"}, {"Path": "/tmp/conformance-no-layer-0"}],
    });
    modify(ctx, "Add", "CombinedLayers", settings)?.fails(&[])?;
    // Only the root is named, and what is not there is removed already.
    let root = json!({"ContainerRootPath": format!("{PLACE}/rootfs")});
    for _ in 0..2 {
        modify(ctx, "Remove", "CombinedLayers", root.clone())?.ok()?;
    }
    Ok(())
}

/// The container's own root as a layer: a container on top of it writes, and the layer stays as it was.
fn layers_combined(ctx: &mut Context<'_>) -> Outcome {
    let setup = ctx.container_setup()?;
    let Some(layer) = setup.spec["root"]["path"].as_str() else {
        return Err(Stop::NotTried("the spec's root.path is no text".into()));
    };
    let place = setup.bundles.join(format!("{}-layers", ctx.new_id()));
    let (root, scratch) = (place.join("rootfs"), place.join("scratch"));
    if setup.is_here() {
        fs::create_dir_all(&scratch)?;
    }
    let settings = json!({
        "ContainerRootPath": root.display().to_string(),
        "Layers": [{"Path": layer, "Id": "layer", "PathType": ""}],
        "ScratchPath": scratch.display().to_string(),
    });
    modify(ctx, "Add", "CombinedLayers", settings)?.ok()?;
    let outcome = write_in_layers(ctx, &root.display().to_string());
    let removal = json!({"ContainerRootPath": root.display().to_string()});
    for _ in 0..2 {
        modify(ctx, "Remove", "CombinedLayers", removal.clone())?.ok()?;
    }
    outcome?;
    ensure(!ctx.agent_has(&root)?, || {
        format!("{} is still there", root.display())
    })?;
    ensure(ctx.agent_has(&scratch.join("upper/written"))?, || {
        "what the container wrote is not in ScratchPath/upper".into()
    })?;
    ensure(!ctx.agent_has(&Path::new(layer).join("written"))?, || {
        "the container wrote into its layer".into()
    })
}

fn write_in_layers(ctx: &mut Context<'_>, root: &str) -> Outcome {
    let script = "echo x > /written && test -s /written && test -x /bin/busybox && echo works";
    let id = ctx.create_with(script, |spec| spec["root"] = json!({"path": root}))?;
    let mut init = ctx.start_init(&id, OUT)?;
    let text = init.output()?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)?;
    ensure(text == "works\n", || {
        format!("in the combined layers the script says {text:?}")
    })
}

fn share(ctx: &mut Context<'_>) -> Outcome {
    let port = ctx.port()?;
    let number = port.number;
    drop(port);
    let settings =
        json!({"MountPath": format!("{PLACE}/m1"), "Port": number, "ShareName": "1", "ReadOnly": true});
    modify(ctx, "Add", "MappedDirectory", settings.clone())?.fails(&[])?;
    modify(ctx, "Remove", "MappedDirectory", settings)?.ok().map(drop)
}

/// Whoever answers the dial says nothing and goes: an error, not a request without an answer.
fn share_broken(ctx: &mut Context<'_>) -> Outcome {
    let port = ctx.port()?;
    let settings = json!({"MountPath": format!("{PLACE}/m2"), "Port": port.number, "ShareName": "2"});
    let request = json!({"RequestType": "Add", "ResourceType": "MappedDirectory", "Settings": settings});
    let id = ctx.send(VM, word::MODIFY_SETTINGS, json!({"Request": request}));
    let dialled = port.accept(ctx.session.limit())?;
    ensure(dialled.is_some(), || "the share's port was not dialled".into())?;
    drop(dialled);
    ctx.session.answer(id)?.fails(&[])?;
    modify(ctx, "Remove", "MappedDirectory", settings)?.ok().map(drop)
}

fn adapter(ctx: &mut Context<'_>) -> Outcome {
    let settings = json!({
        "NamespaceID": "conformance-namespace", "ID": "00000000-1111-2222-3333-444444444444",
        "MacAddress": "00-15-5D-00-00-01", "IPAddress": "192.0.2.2", "PrefixLength": 24, "GatewayAddress": "192.0.2.1",
        "IPConfigs": [{"IPAddress": "192.0.2.2", "PrefixLength": 24}],
        "Routes": [{"NextHop": "192.0.2.1", "DestinationPrefix": "0.0.0.0/0"}],
    });
    modify(ctx, "Add", "Network", settings)?.fails(&[])
}

fn pci_device(ctx: &mut Context<'_>) -> Outcome {
    let settings = json!({"VMBusGUID": "00000000-1111-2222-3333-444444444444"});
    modify(ctx, "Add", "VPCIDevice", settings)?.fails(&[])
}

fn constraints(ctx: &mut Context<'_>) -> Outcome {
    let settings = json!({"Linux": {"memory": {"limit": 1 << 26}}});
    let request =
        json!({"RequestType": "Update", "ResourceType": "ContainerConstraints", "Settings": settings});
    ctx.of(
        "no-such-container",
        word::MODIFY_SETTINGS,
        json!({"Request": request}),
    )?
    .fails(&[])
}

fn unknown_resource(ctx: &mut Context<'_>) -> Outcome {
    for resource in ["Teapot", "", "mappedvirtualdisk "] {
        modify(ctx, "Add", resource, json!({}))?.fails(&[])?;
    }
    Ok(())
}

fn unknown_request_type(ctx: &mut Context<'_>) -> Outcome {
    let settings = json!({"ContainerRootPath": format!("{PLACE}/rootfs")});
    for kind in ["Brew", "Update", "PreAdd"] {
        modify(ctx, kind, "CombinedLayers", settings.clone())?.fails(&[])?;
    }
    Ok(())
}

/// An empty or absent request type means Add: were it taken for Remove, what is not there would be success.
fn no_request_type(ctx: &mut Context<'_>) -> Outcome {
    let settings = json!({
        "ContainerRootPath": format!("{PLACE}/rootfs"), "Layers": [{"Path": "/tmp/conformance-no-layer-0"}],
    });
    let absent = json!({"ResourceType": "CombinedLayers", "Settings": settings});
    let mut empty = absent.clone();
    empty["RequestType"] = "".into();
    for request in [absent, empty] {
        ctx.vm(word::MODIFY_SETTINGS, json!({"Request": request}))?
            .fails(&[])?;
    }
    Ok(())
}

fn request_is_an_object(ctx: &mut Context<'_>) -> Outcome {
    let text = json!({"RequestType": "Remove", "ResourceType": "CombinedLayers"}).to_string();
    ctx.vm(word::MODIFY_SETTINGS, json!({"Request": text}))?
        .fails(&[code::BAD_JSON])?;
    ctx.vm(word::MODIFY_SETTINGS, json!({}))?.fails(&[])?;
    let settings = json!({"MountPath": 7, "Lun": 1});
    modify(ctx, "Add", "MappedVirtualDisk", settings)?.fails(&[])?;
    let settings = json!({"MountPath": format!("{PLACE}/m3"), "Lun": 256});
    modify(ctx, "Add", "MappedVirtualDisk", settings)?.fails(&[])
}
