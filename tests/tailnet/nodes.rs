//! Who is in the tailnet, as the control server says.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::control::Control;
use crate::process::wait_for;

/// One node in the control server's list.
#[derive(Clone, Debug)]
pub struct Node {
    /// The name it is reached by.
    pub name: String,
    pub tags: Vec<String>,
    pub online: bool,
    /// Whether the key it came with was for ephemeral nodes.
    pub ephemeral: bool,
}

impl Control {
    /// Every node.
    pub fn nodes(&self) -> Vec<Node> {
        let listed = self.ask_json(&["nodes", "list"]);
        listed.as_array().map(|nodes| nodes.iter().map(Node::read).collect()).unwrap_or_default()
    }

    /// The node of that name, if it is there.
    pub fn node(&self, name: &str) -> Option<Node> {
        self.nodes().into_iter().find(|node| node.name == name)
    }

    /// Takes the node of that name out of the tailnet.
    pub fn delete(&self, name: &str) {
        let listed = self.ask_json(&["nodes", "list"]);
        let mut nodes = listed.as_array().into_iter().flatten();
        let node = nodes.find(|node| node["given_name"] == name).expect("a node of that name");
        let deleted = self.ask(&["nodes", "delete", "--force", "-i", &node["id"].to_string()]);
        deleted.unwrap_or_else(|error| panic!("cannot delete {name}: {error}"));
    }

    /// Waits until the node of that name has left; how long that took.
    pub fn until_gone(&self, name: &str) -> Duration {
        let started = Instant::now();
        wait_for(&format!("{name} to leave"), || self.node(name).is_none().then_some(()));
        started.elapsed()
    }
}

impl Node {
    fn read(listed: &Value) -> Node {
        let tags = listed["tags"].as_array().into_iter().flatten();
        Node {
            name: listed["given_name"].as_str().unwrap_or_default().to_owned(),
            tags: tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect(),
            online: listed["online"] == true,
            ephemeral: listed["pre_auth_key"]["ephemeral"] == true,
        }
    }
}
