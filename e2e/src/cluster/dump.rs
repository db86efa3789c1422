//! What a failed test leaves to look at: the objects, events and logs of its namespace, and a digest.

use std::path::Path;

use anyhow::Result;
use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};

use super::scenario::Namespace;

/// The end of a log that is kept, in lines.
const LOG_LINES: i64 = 2_000;
/// The end of a log that is shown, in lines.
const SHOWN_LINES: usize = 12;

/// Writes everything of a namespace to `target/cluster/dumps/NAMESPACE/` and returns a digest to print.
pub async fn namespace(namespace: &Namespace) -> String {
    let folder = namespace.cluster.layout().dumps().join(&namespace.name);
    match write(namespace, &folder).await {
        Ok(digest) => format!("{digest}--- all of it: {} ---", folder.display()),
        Err(error) => format!("unable to dump {}: {error:#}", namespace.name),
    }
}

async fn write(namespace: &Namespace, folder: &Path) -> Result<String> {
    std::fs::create_dir_all(folder)?;
    let mut digest = String::new();
    let views: [(&str, &[&str]); 5] = [
        ("pods.txt", &["get", "pods", "--output=wide"]),
        ("events.txt", &["get", "events", "--sort-by=.lastTimestamp"]),
        ("stacks.yaml", &["get", "speechstacks", "--output=yaml"]),
        (
            "objects.yaml",
            &[
                "get",
                "all,configmaps,pvc,pdb,endpointslices,serviceaccounts,roles,rolebindings",
                "--output=yaml",
            ],
        ),
        ("describe.txt", &["describe", "pods"]),
    ];
    for (file, arguments) in views {
        // One view may fail: the kind of the stacks is not in every cluster.
        let text = namespace.kubectl(arguments).await.unwrap_or_else(|error| format!("{error:#}\n"));
        std::fs::write(folder.join(file), &text)?;
        if file == "pods.txt" {
            digest += &text;
        } else if file == "events.txt" {
            digest += &tail(&text, 20);
        }
    }
    let nodes = namespace.cluster.kubectl(&["describe", "nodes"]).await.unwrap_or_default();
    std::fs::write(folder.join("nodes.txt"), nodes)?;
    let pods = namespace.api::<v1::Pod>().list(&ListParams::default()).await?;
    for pod in pods {
        digest += &logs(namespace, &pod, folder).await?;
    }
    Ok(digest)
}

/// Writes the logs of a pod's containers and returns the end of those that were restarted or are not ready.
async fn logs(namespace: &Namespace, pod: &v1::Pod, folder: &Path) -> Result<String> {
    let name = pod.name_any();
    let Some(status) = &pod.status else { return Ok(String::new()) };
    let api = namespace.api::<v1::Pod>();
    let mut digest = String::new();
    for container in status.init_container_statuses.iter().chain(&status.container_statuses).flatten() {
        let lives = if container.restart_count > 0 { &[false, true][..] } else { &[false] };
        for previous in lives {
            let parameters = LogParams {
                container: Some(container.name.clone()),
                previous: *previous,
                tail_lines: Some(LOG_LINES),
                ..LogParams::default()
            };
            let log = api.logs(&name, &parameters).await.unwrap_or_else(|error| format!("{error}\n"));
            let life = if *previous { ".previous" } else { "" };
            std::fs::write(folder.join(format!("{name}.{}{life}.log", container.name)), &log)?;
            if !container.ready || container.restart_count > 0 {
                let restarts = container.restart_count;
                digest += &format!("--- {name}/{}{life}, {restarts} restarts ---\n", container.name);
                digest += &tail(&log, SHOWN_LINES);
            }
        }
    }
    Ok(digest)
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let mut end = lines[lines.len().saturating_sub(count)..].join("\n");
    end.push('\n');
    end
}
