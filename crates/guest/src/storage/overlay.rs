//! Container roots from layers, as the bridge asks for them (GCS bridge protocol §7.4).

use cofferdam_mounting::{
    mount_point,
    overlay::{self, Overlay},
};
use cofferdam_protocol::settings::CombinedLayers;

use super::path::guest_path;
use crate::error::Result;

/// Where short links to layers live while a mount is made: the root is the agent's own.
const LINKS: &str = "/l";

/// Stacks the layers on the container root.
pub(crate) fn add(request: &CombinedLayers) -> Result<()> {
    Ok(overlay::add(&parsed(request)?)?)
}

/// Takes the container root away. What is absent counts as done.
pub(crate) fn remove(request: &CombinedLayers) -> Result<()> {
    Ok(mount_point::clear(&guest_path(&request.container_root_path)?)?)
}

fn parsed(request: &CombinedLayers) -> Result<Overlay> {
    Ok(Overlay {
        root: guest_path(&request.container_root_path)?,
        lower: request
            .layers
            .iter()
            .map(|layer| guest_path(&layer.path))
            .collect::<Result<_>>()?,
        scratch: match request.scratch_path.as_str() {
            "" => None,
            path => Some(guest_path(path)?),
        },
        links: LINKS.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cofferdam_protocol::settings::Layer;

    use super::*;

    fn request(layer: &str, scratch: &str) -> CombinedLayers {
        CombinedLayers {
            container_root_path: "/run/gcs/c/1/rootfs".into(),
            layers: vec![Layer {
                path: layer.into(),
                ..Layer::default()
            }],
            scratch_path: scratch.into(),
            ..CombinedLayers::default()
        }
    }

    #[test]
    fn an_empty_scratch_path_is_a_read_only_root() {
        let overlay = parsed(&request("/run/layers/p0", "")).unwrap();
        assert_eq!((overlay.lower.len(), overlay.scratch), (1, None));
        let overlay = parsed(&request("/run/layers/p0", "/run/gcs/c/1/scratch")).unwrap();
        assert_eq!(
            overlay.scratch.as_deref(),
            Some(Path::new("/run/gcs/c/1/scratch"))
        );
    }

    #[test]
    fn no_part_may_lie_in_the_agents_own_directories() {
        assert!(parsed(&request("/proc/1", "")).is_err());
        assert!(parsed(&request("/run/layers/p0", "/dev/s")).is_err());
    }
}
