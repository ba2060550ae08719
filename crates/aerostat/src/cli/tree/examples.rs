//! An example for every command, in one place so that they can be read together. A test parses
//! each of them, and asks for those that are missing.

/// Lines of examples for the command at `path`.
pub(super) fn of(path: &str) -> Option<&'static str> {
    let (_, lines) = EXAMPLES.iter().find(|(command, _)| *command == path)?;
    Some(lines)
}

const EXAMPLES: &[(&str, &str)] = &[
    ("up", "  aerostat up"),
    (
        "down",
        "  aerostat down\n  aerostat down --purge --yes      the data too",
    ),
    ("serve", "  aerostat serve --log debug"),
    ("doctor", "  aerostat doctor\n  aerostat doctor -o json"),
    ("kernel", "  aerostat kernel list"),
    ("kernel build", "  aerostat kernel build"),
    ("kernel list", "  aerostat kernel list -o wide"),
    ("kernel use", "  aerostat kernel use debian"),
    ("kernel path", "  aerostat kernel path"),
    ("env", "  eval \"$(aerostat env)\""),
    (
        "join",
        "  aerostat join TOKEN\n  aerostat join TOKEN --name fra-2 --advertise 192.0.2.7",
    ),
    ("host", "  aerostat host list"),
    ("host list", "  aerostat host list -o wide"),
    ("host remove", "  aerostat host remove fra-2"),
    ("host token", "  aerostat host token create"),
    (
        "host token create",
        "  aerostat host token create --ttl 30m",
    ),
    (
        "machine",
        "  aerostat machine run nginx --name web\n  aerostat machine logs -f web\n  \
         aerostat machine why web",
    ),
    (
        "machine run",
        "  aerostat machine run nginx
  aerostat machine run --name web -a shop -e MODE=live --memory 512m nginx:1.27
  aerostat machine run --rm -it debian bash
  aerostat machine run --check http:8080/health,readiness --restart always app:2
  aerostat machine run -v data:/var/lib/data --file app.conf:/etc/app.conf app:2
  id=$(aerostat machine run -d nginx)",
    ),
    (
        "machine create",
        "  aerostat machine create --name web nginx",
    ),
    (
        "machine list",
        "  aerostat machine list
  aerostat machine list -a shop --state started -o wide
  aerostat machine list -m role=worker -o name",
    ),
    (
        "machine status",
        "  aerostat machine status web
  aerostat machine status shop/web -o json",
    ),
    (
        "machine logs",
        "  aerostat machine logs -f web
  aerostat machine logs -n 20 --since 10m web db
  aerostat machine logs -f -a shop              of all machines of an app",
    ),
    (
        "machine exec",
        "  aerostat machine exec web ls -l /
  aerostat machine exec -it web bash
  aerostat machine exec -i web sh -c 'cat >/tmp/x'",
    ),
    ("machine console", "  aerostat machine console web"),
    (
        "machine attach",
        "  aerostat machine attach web      Ctrl-P Ctrl-Q leaves it running",
    ),
    (
        "machine start",
        "  aerostat machine start web\n  aerostat machine start --all -a shop --yes",
    ),
    (
        "machine stop",
        "  aerostat machine stop web db
  aerostat machine stop --timeout 30 --signal SIGTERM web
  aerostat machine stop --all -a shop --yes",
    ),
    ("machine suspend", "  aerostat machine suspend web"),
    ("machine resume", "  aerostat machine resume web"),
    (
        "machine restart",
        "  aerostat machine restart web\n  aerostat machine restart --force web",
    ),
    (
        "machine signal",
        "  aerostat machine signal --signal SIGHUP web",
    ),
    ("machine kill", "  aerostat machine kill web"),
    (
        "machine destroy",
        "  aerostat machine destroy web
  aerostat machine rm --force web db
  aerostat machine destroy --all -a shop --force --yes",
    ),
    (
        "machine update",
        "  aerostat machine update web --image nginx:1.28
  aerostat machine update web --memory 1g -e MODE=live --dry-run
  aerostat machine update web --to-version 01KAKS00000000000000000001",
    ),
    (
        "machine clone",
        "  aerostat machine clone web --name web-2 --region fra",
    ),
    (
        "machine wait",
        "  aerostat machine wait web
  aerostat machine wait job --state stopped,failed --timeout 600",
    ),
    (
        "machine events",
        "  aerostat machine events web\n  aerostat machine events web -n 5 -o json",
    ),
    ("machine why", "  aerostat machine why web"),
    (
        "machine cp",
        "  aerostat machine cp web:/etc/nginx .
  aerostat machine cp site.tar.gz web:/tmp/
  aerostat machine cp web:/var/log - > log.tar",
    ),
    ("machine ps", "  aerostat machine ps web -o wide"),
    (
        "machine stats",
        "  aerostat machine stats\n  aerostat machine stats web -o json",
    ),
    ("machine cordon", "  aerostat machine cordon web"),
    ("machine uncordon", "  aerostat machine uncordon web"),
    (
        "machine metadata",
        "  aerostat machine metadata web
  aerostat machine metadata web role=worker old-",
    ),
    ("machine versions", "  aerostat machine versions web"),
    ("machine lease", "  aerostat machine lease show web"),
    ("machine lease show", "  aerostat machine lease show web"),
    (
        "machine lease acquire",
        "  aerostat machine lease acquire web --ttl 60 --description backup",
    ),
    (
        "machine lease release",
        "  aerostat machine lease release web --nonce 0123456789ab",
    ),
    ("image", "  aerostat image list"),
    ("image list", "  aerostat image list -o wide"),
    (
        "image pull",
        "  aerostat image pull nginx:1.27
  aerostat image pull --plain-http localhost:5000/app:2",
    ),
    (
        "image import",
        "  docker save app:2 -o app.tar && aerostat image import app.tar
  aerostat image import ./layout app:2",
    ),
    ("image prune", "  aerostat image prune --all"),
    ("image remove", "  aerostat image remove nginx:1.27"),
    ("app", "  aerostat app list"),
    ("app list", "  aerostat app list -o wide"),
    (
        "app create",
        "  aerostat app create shop\n  aerostat app create shop --network shops",
    ),
    ("app show", "  aerostat app show shop"),
    ("app destroy", "  aerostat app destroy shop --force --yes"),
    ("wireguard", "  aerostat wireguard create --file wg.conf"),
    (
        "wireguard create",
        "  aerostat wireguard create laptop --file wg.conf && wg-quick up ./wg.conf",
    ),
    ("wireguard list", "  aerostat wireguard list"),
    ("wireguard remove", "  aerostat wireguard remove laptop"),
    (
        "k8s",
        "  aerostat k8s list\n  aerostat k8s create team-a\n  \
         aerostat k8s kubeconfig team-a --merge",
    ),
    ("k8s list", "  aerostat k8s list -o wide"),
    (
        "k8s create",
        "  aerostat k8s create team-a\n  aerostat k8s create team-a --listen 192.0.2.7:6444\n  \
         aerostat k8s create team-a --settings team-a.toml",
    ),
    (
        "k8s kubeconfig",
        "  aerostat k8s kubeconfig --merge\n  aerostat k8s kubeconfig team-a > team-a.yaml",
    ),
    (
        "k8s rotate-keys",
        "  aerostat k8s rotate-keys secrets\n  aerostat k8s rotate-keys tokens team-a\n  \
         aerostat k8s rotate-keys secrets --drop-old",
    ),
    ("k8s delete", "  aerostat k8s delete team-a"),
    (
        "k8s backup",
        "  aerostat k8s backup --file monday.tar\n  \
         aerostat k8s backup team-a --file - | age -r KEY > team-a.age",
    ),
    ("k8s restore", "  aerostat k8s restore --file monday.tar"),
    (
        "kubernetes",
        "  aerostat kubernetes --etcd http://127.0.0.1:2379 --listen 127.0.0.1:6444 --dir ./second",
    ),
    ("mesh", "  aerostat mesh status"),
    ("mesh status", "  aerostat mesh status"),
    (
        "volume",
        "  aerostat volume create data -a shop --size 10\n  aerostat volume list",
    ),
    (
        "volume create",
        "  aerostat volume create data -a shop --size 10
  aerostat volume create data -a shop --region fra --backups off
  aerostat machine run -a shop -v vol_0002000000000001:/data db:1",
    ),
    (
        "volume list",
        "  aerostat volume list\n  aerostat volume list -a shop -o wide",
    ),
    (
        "volume show",
        "  aerostat volume show vol_0002000000000001\n  aerostat volume show data -a shop",
    ),
    (
        "volume extend",
        "  aerostat volume extend data -a shop --size 20",
    ),
    (
        "volume update",
        "  aerostat volume update data -a shop --backups on --retention 14",
    ),
    (
        "volume destroy",
        "  aerostat volume destroy vol_0002000000000001 --yes",
    ),
    (
        "volume fork",
        "  aerostat volume fork data -a shop --name copy",
    ),
    (
        "volume restore",
        "  aerostat volume restore vs_0002000000000001 -a shop --name data",
    ),
    ("volume snapshot", "  aerostat volume snapshot list data"),
    (
        "volume snapshot create",
        "  aerostat volume snapshot create data -a shop",
    ),
    (
        "volume snapshot list",
        "  aerostat volume snapshot list data -o wide",
    ),
    ("service", "  aerostat service list -a shop"),
    ("service list", "  aerostat service list -a shop"),
    ("service show", "  aerostat service show web -a shop"),
    (
        "service set",
        "  aerostat service set web -a shop --port 80:8080 --machine 0123456789abcd",
    ),
    ("service remove", "  aerostat service remove web -a shop"),
    ("secret", "  aerostat secret list -a web"),
    (
        "secret import",
        "  cat secrets.env | aerostat secret import -a web",
    ),
    ("secret list", "  aerostat secret list -a web -o json"),
    (
        "secret unset",
        "  aerostat secret unset -a web DATABASE_URL",
    ),
    ("secret rotate-key", "  aerostat secret rotate-key"),
    ("token", "  aerostat token list"),
    (
        "token create",
        "  aerostat token create --app web --verb read --ttl 8h
  aerostat token create --org personal --name ci --ttl 90d",
    ),
    (
        "token attenuate",
        "  cat all.token | aerostat token attenuate --app web --ttl 1h > web.token",
    ),
    ("token inspect", "  cat web.token | aerostat token inspect"),
    ("token list", "  aerostat token list -o json"),
    (
        "token revoke",
        "  aerostat token revoke 01J8ZQ4Y6T7W8X9A0B1C2D3E4F",
    ),
    ("context", "  aerostat context list"),
    ("context list", "  aerostat context list"),
    (
        "context use",
        "  aerostat context use lab\n  aerostat context use here",
    ),
    (
        "context add",
        "  aerostat context add lab http://127.0.0.1:4280 --token-file lab.token",
    ),
    ("context remove", "  aerostat context remove lab"),
    (
        "completion",
        "  source <(aerostat completion bash)               in ~/.bashrc
  source <(aerostat completion zsh)                in ~/.zshrc
  aerostat completion fish | source                in config.fish",
    ),
    ("commands", "  aerostat commands"),
];

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    EXAMPLES.iter().copied()
}
