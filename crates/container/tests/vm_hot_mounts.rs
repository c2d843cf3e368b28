//! Mounts of a running container in a real VM: what its process, which ran before, sees of them, and what is left.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod vm_pod;

use std::fs;

use vm_pod::Pod;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_running_process_sees_what_is_added_under_its_rights_until_it_is_removed() {
    let pod = Pod::boot().await;
    let dir = pod.directory("dir", &[("f", "in the directory")]);
    let files = pod.directory("files", &[("one", "single"), ("secret", "no")]);
    let disk = pod.disk("disk.img", "on the disk");
    let locked = pod.disk("locked.img", "locked");
    let managed = pod.disk("managed.img", "managed");
    let before_locked = fs::read(&locked).unwrap();
    let mut container = pod.container("a").await;
    let before = pod.mounts().await;

    assert_eq!(container.says("ls /hot").await.1, 2, "there is no such place");
    for (kind, source, destination, options) in [
        ("bind", "dir", "/hot/dir", &[][..]),
        ("bind", "dir", "/hot/dir-ro", &["ro"]),
        ("bind", "files/one", "/hot/file", &[]),
        ("bind", "files/one", "/hot/file-ro", &["ro"]),
        ("virtual-disk", "disk.img", "/hot/disk", &[]),
        ("virtual-disk", "disk.img", "/hot/disk-ro", &["ro"]),
        ("virtual-disk", "locked.img", "/hot/locked", &["RO"]),
        ("automanage-virtual-disk", "managed.img", "/hot/managed", &[]),
        ("bind", "sandbox:///shared", "/hot/sandbox", &[]),
    ] {
        let added = container.add(kind, source, destination, options).await;
        added.unwrap_or_else(|error| panic!("{destination}: {error}"));
    }

    for (file, content) in [
        ("/hot/dir/f", "in the directory"),
        ("/hot/dir-ro/f", "in the directory"),
        ("/hot/file", "single"),
        ("/hot/file-ro", "single"),
        ("/hot/disk/f", "on the disk"),
        ("/hot/disk-ro/f", "on the disk"),
        ("/hot/locked/f", "locked"),
        ("/hot/managed/f", "managed"),
    ] {
        assert_eq!(container.prints(&format!("cat {file}")).await, content, "{file}");
    }
    for file in ["dir/new", "file", "disk/new", "managed/new", "sandbox/new"] {
        container.prints(&format!("echo written > /hot/{file}")).await;
    }
    for file in ["dir-ro/no", "file-ro", "disk-ro/no", "locked/no"] {
        let (text, status) = container.says(&format!("echo no > /hot/{file}")).await;
        assert_eq!(status, 1, "{file}: {text}");
        assert!(text.contains("Read-only file system"), "{file}: {text}");
    }
    // One file system under both rights.
    assert_eq!(
        container.prints("cat /hot/disk-ro/new /hot/dir-ro/new").await,
        "written\nwritten"
    );
    assert_eq!(container.prints("ls /hot/dir").await, "f\nnew");
    assert_eq!(fs::read_to_string(dir.join("new")).unwrap(), "written\n");
    assert_eq!(fs::read_to_string(files.join("one")).unwrap(), "written\n");
    assert_eq!(container.prints("grep -c secret /proc/mounts; true").await, "0");

    let listed = container.allocation.mounts().list();
    assert_eq!(listed.len(), 9);
    for mounted in listed.iter().rev() {
        container.remove(&mounted.destination).await.unwrap();
    }
    let (text, status) = container.says("ls /hot/dir").await;
    assert_eq!(status, 2, "{text}");
    assert_eq!(
        container.says("ls -d /hot").await.1,
        2,
        "what was made for them is gone too"
    );
    assert_eq!(
        container
            .prints("grep -c ' /hot' /proc/self/mountinfo; true")
            .await,
        "0"
    );
    assert_eq!(pod.mounts().await, before);
    assert!(!managed.exists());
    assert_eq!(fs::read(&locked).unwrap(), before_locked);
    assert_eq!(pod.on_disk(&disk, "new"), "written\n");
    container.end(&pod).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn links_of_the_container_end_at_its_root_and_lead_to_nothing_of_the_runtime() {
    let pod = Pod::boot().await;
    pod.directory("dir", &[("f", "inside")]);
    let mut container = pod.container("a").await;
    let before = pod.mounts().await;
    container
        .prints("mkdir -p /real/below; ln -s / /root-link; ln -s /../../../.. /up; ln -s /real/below /abs; ln -s ../../../real /rel")
        .await;
    // Each is the container's own directory, and the mount is seen there and nowhere in the VM.
    for (destination, place) in [
        ("/up/one", "/one"),
        ("/root-link/two", "/two"),
        ("/abs/three", "/real/below/three"),
        ("/rel/four/deeper", "/real/four/deeper"),
        ("/up/run/gcs/c/1", "/run/gcs/c/1"),
    ] {
        container.add("bind", "dir", destination, &["ro"]).await.unwrap();
        assert_eq!(
            container.prints(&format!("cat {place}/f")).await,
            "inside",
            "{destination}"
        );
    }
    let in_vm = pod.mounts().await;
    assert_eq!(in_vm.len(), before.len() + 5);
    let allowed = |path: &&String| path.contains("/mounts/m") || before.contains(path);
    assert_eq!(in_vm.iter().filter(allowed).count(), in_vm.len(), "{in_vm:?}");
    // The container turns its links round: what was mounted is taken out wherever they lead now.
    container
        .prints("ln -sfn /tmp /abs; ln -sfn /tmp /rel; rm /up")
        .await;
    for destination in [
        "/up/run/gcs/c/1",
        "/rel/four/deeper",
        "/abs/three",
        "/root-link/two",
        "/up/one",
    ] {
        container.remove(destination).await.unwrap();
    }
    assert_eq!(
        container
            .prints("ls -A /real/below; ls -d /one /two /run/gcs /real/four 2>/dev/null; true")
            .await,
        ""
    );

    container
        .prints("ln -s /proc /p; ln -s /dev /d; ln -s /sys/kernel /s; ln -s /nowhere/at/all /dangling")
        .await;
    for (destination, why) in [
        ("/p/sys", "belongs to the container's runtime"),
        ("/d/made", "belongs to the container's runtime"),
        ("/s", "belongs to the container's runtime"),
        ("/root-link", "leads to the container's root"),
        ("/dangling", "No such file or directory"),
        ("/etc/issue", "is no directory"),
        ("/etc/issue/below", "Not a directory"),
    ] {
        let error = container.add("bind", "dir", destination, &[]).await.unwrap_err();
        assert!(error.to_string().contains(why), "{destination}: {error}");
    }
    assert_eq!(container.says("ls -d /dev/made").await.1, 2);
    assert_eq!(pod.mounts().await, before);
    container.end(&pod).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_link_below_a_share_does_not_lead_into_the_vm() {
    let pod = Pod::boot().await;
    let files = pod.directory("files", &[("one", "single")]);
    let container = pod.container("a").await;
    let before = pod.mounts().await;
    // Between the look and the mount a container that shares the directory could do this.
    let mount = cofferdam_plan::Mount {
        destination: "/stolen".into(),
        kind: Some("bind".into()),
        source: Some("files/one".into()),
        options: None,
    };
    let mounts = container.allocation.mounts();
    let plan = mounts.plan(&mount, &pod.path(""), &|_| Ok(())).unwrap();
    fs::remove_file(files.join("one")).unwrap();
    std::os::unix::fs::symlink("/init", files.join("one")).unwrap();
    let error = mounts.add("a", &plan).await.unwrap_err();
    assert!(
        error.to_string().contains("a symbolic link leads there"),
        "{error}"
    );
    assert_eq!(pod.mounts().await, before);
    container.end(&pod).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_mount_in_use_names_its_holder_and_goes_once_it_is_let_go() {
    let pod = Pod::boot().await;
    let disk = pod.disk("disk.img", "on the disk");
    pod.directory("dir", &[("f", "inside")]);
    let mut container = pod.container_with("a", &["CAP_SYS_ADMIN"]).await;
    let before = pod.mounts().await;
    container
        .add("virtual-disk", "disk.img", "/data", &[])
        .await
        .unwrap();
    let busy = async |container: &vm_pod::Container, holder: &str| {
        let error = container.remove("/data").await.unwrap_err().to_string();
        assert!(error.contains("mount /data of the container is busy"), "{error}");
        assert!(error.contains(holder), "{holder}: {error}");
    };
    container.prints("exec 7< /data/f").await;
    busy(&container, "(bash) has /data/f open").await;
    assert_eq!(
        container.prints("cat <&7").await,
        "on the disk",
        "it is whole still"
    );
    container.prints("exec 7<&-; cd /data").await;
    busy(&container, "(bash) has its working directory in it").await;
    container.prints("cd /").await;
    container.add("bind", "dir", "/data/inner", &[]).await.unwrap();
    busy(&container, "/data/inner is mounted below it").await;
    container.remove("/data/inner").await.unwrap();
    container.prints("mount -t tmpfs tmpfs /data").await;
    busy(&container, "something else is mounted over it").await;
    container.prints("umount /data").await;
    // A copy of the namespace keeps the disk, though nothing is left in the container's own.
    container
        .prints("{ unshare --mount --propagation private sleep 1000 & } ; sleeper=$!; sleep 1")
        .await;
    busy(
        &container,
        "(sleep) has it in a mount namespace of its own, on /data",
    )
    .await;
    assert_eq!(container.says("ls /data/f").await.1, 2);
    busy(&container, "in a mount namespace of its own").await;
    container.prints("kill $sleeper; wait $sleeper; true").await;
    container.remove("/data").await.unwrap();
    assert_eq!(container.says("ls -d /data").await.1, 2);
    assert_eq!(pod.mounts().await, before);
    assert_eq!(pod.on_disk(&disk, "f"), "on the disk");
    container.end(&pod).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn two_running_containers_share_a_disk_and_the_end_of_one_leaves_it_to_the_other() {
    let pod = Pod::boot().await;
    let disk = pod.disk("both.img", "shared");
    let managed = pod.disk("managed.img", "managed");
    let (mut a, mut b) = (pod.container("a").await, pod.container("b").await);
    let (first, second) = tokio::join!(
        a.add("virtual-disk", "both.img", "/data", &[]),
        b.add("virtual-disk", "both.img", "/data", &["ro"])
    );
    // Whoever comes first attaches it, and one that is attached read-only does not become writable.
    if let Err(error) = &first {
        assert!(
            error.to_string().contains("already attached read-only"),
            "{error}"
        );
        b.remove("/data").await.unwrap();
        a.add("virtual-disk", "both.img", "/data", &[]).await.unwrap();
        b.add("virtual-disk", "both.img", "/data", &["ro"]).await.unwrap();
    }
    second.unwrap();
    a.add("automanage-virtual-disk", "managed.img", "/own", &[])
        .await
        .unwrap();
    a.prints("echo from a > /data/new").await;
    assert_eq!(b.prints("cat /data/new").await, "from a");
    assert_eq!(b.says("echo no > /data/no").await.1, 1);
    let again = a.add("virtual-disk", "both.img", "/data", &[]).await.unwrap_err();
    assert!(
        again
            .to_string()
            .contains("container a has a mount on /data already"),
        "{again}"
    );
    // It ends with its mounts in it: they went with its namespace, and the rest is released with the container.
    a.end(&pod).await;
    assert!(!managed.exists());
    assert_eq!(b.prints("cat /data/new").await, "from a");
    b.remove("/data").await.unwrap();
    assert_eq!(pod.on_disk(&disk, "new"), "from a\n");
    b.end(&pod).await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn many_additions_and_removals_in_parallel_leave_nothing() {
    const ROUNDS: usize = 12;
    let pod = Pod::boot().await;
    pod.directory("dir", &[("f", "inside")]);
    pod.disk("disk.img", "on the disk");
    let mut container = pod.container("a").await;
    let before = pod.mounts().await;
    for round in 0..ROUNDS {
        let options: &[&str] = if round % 2 == 0 { &["ro"] } else { &[] };
        let added = tokio::join!(
            container.add("bind", "dir", "/dir", options),
            container.add("bind", "dir/f", "/file", options),
            container.add("virtual-disk", "disk.img", "/disk", options),
        );
        let index = added.0.unwrap().index;
        assert!(index >= 4 + 3 * round, "a number is never used again: {index}");
        added.1.unwrap();
        added.2.unwrap();
        assert_eq!(
            container.prints("cat /dir/f /file /disk/f").await,
            "insideinsideon the disk"
        );
        let removed = tokio::join!(
            container.remove("/dir"),
            container.remove("/file"),
            container.remove("/disk")
        );
        for outcome in [removed.0, removed.1, removed.2] {
            outcome.unwrap();
        }
        assert_eq!(pod.mounts().await, before, "round {round}");
    }
    assert_eq!(
        container.prints("ls -d /dir /file /disk 2>/dev/null; true").await,
        ""
    );
    container.end(&pod).await;
    pod.end().await;
}
