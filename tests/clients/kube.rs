//! kubectl with a stand-in for the Kubernetes API: plain requests, a stream, and both upgrades.

use std::fs;

use crate::case::Case;
use crate::clients::Field;
use crate::clients::script::{Script, Way};
use crate::tailnet::Tailnet;

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("program_kubectl_get", |t| {
            kubectl(t, "get", "kubectl get pods -o name", "pod/web-0\n");
        }),
        case("program_kubectl_logs", |t| {
            kubectl(t, "logs -f", "kubectl logs -f web-0", "line 1\nline 2\nline 3\n");
        }),
        case("program_kubectl_exec", |t| {
            kubectl(
                t,
                "exec -i",
                "echo there and back | kubectl exec -i web-0 -- cat",
                "there and back\n",
            );
        }),
        case("program_kubectl_port_forward", |t| {
            kubectl(t, "port-forward", PORT_FORWARD, "hello to web.corp.example\n");
        }),
    ]
}

/// Its port, once it says which one it has, leads to the web server beside the API.
const PORT_FORWARD: &str = r#"
kubectl port-forward pod/web-0 :443 >said & pid=$!
until port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' said) && [ "$port" ]; do
  kill -0 $pid; sleep 0.05
done
curl -sSf --noproxy '*' --connect-to web.corp.example:443:127.0.0.1:$port https://web.corp.example/hello
kill $pid
"#;

/// kubectl's settings, where `KUBECONFIG` tells of them.
pub fn configure(field: &Field) {
    let settings = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: far\n\
         clusters: [{{name: far, cluster: {{server: 'https://kube.corp.example:6443', \
         certificate-authority: {}}}}}]\n\
         users: [{{name: ops, user: {{token: none}}}}]\n\
         contexts: [{{name: far, context: {{cluster: far, user: ops}}}}]\n",
        field.path("ca.pem")
    );
    fs::write(field.path("kubeconfig"), settings).expect("kubeconfig");
}

fn kubectl(tailnet: &Tailnet, what: &str, line: &str, expected: &str) {
    configure(tailnet.clients());
    Script {
        program: &format!("kubectl {what}"),
        version: "kubectl version --client | sed -n 's/^Client Version: v//p'",
        line,
        expected,
        host: "kube.corp.example",
    }
    .by(tailnet, &[Way::Proxy, Way::Run]);
}
