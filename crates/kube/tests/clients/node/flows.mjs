// What programs written with the JavaScript client do: `node flows.mjs <flow>...`.
//
// Each flow prints one line per thing that went as it should; the first that did not ends it.

import * as k8s from '@kubernetes/client-node';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const namespace = 'default';

function check(holds, what) {
    if (!holds) {
        console.log(`FAILED: ${what}`);
        process.exit(1);
    }
    console.log(`ok: ${what}`);
}

async function eventually(what, holds) {
    const end = Date.now() + 30000;
    while (Date.now() < end) {
        if (await holds()) {
            return check(true, what);
        }
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    check(false, what);
}

async function status(call) {
    try {
        await call();
    } catch (error) {
        return error.code;
    }
    return 200;
}

const configMap = (name) => ({ metadata: { name, labels: { js: 'yes' } }, data: { a: 'b' } });

async function objects() {
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('js') });
    check(made.metadata.uid && made.data.a === 'b', 'a config map is created');
    made.data.a = 'c';
    const replaced = await core.replaceNamespacedConfigMap({ name: 'js', namespace, body: made });
    check(replaced.data.a === 'c', 'and replaced');
    const stale = core.replaceNamespacedConfigMap({ name: 'js', namespace, body: made });
    check((await status(() => stale)) === 409, 'an old version conflicts');
    const list = await core.listNamespacedConfigMap({ namespace, labelSelector: 'js=yes', limit: 1 });
    check(list.items.length === 1, 'it is listed');
    const patches = [
        [k8s.PatchStrategy.JsonPatch, [{ op: 'add', path: '/data/j', value: '1' }], 'j'],
        [k8s.PatchStrategy.MergePatch, { data: { m: '1' } }, 'm'],
        [k8s.PatchStrategy.StrategicMergePatch, { data: { s: '1' } }, 's'],
    ];
    for (const [strategy, body, key] of patches) {
        const options = k8s.setHeaderOptions('Content-Type', strategy);
        const patched = await core.patchNamespacedConfigMap({ name: 'js', namespace, body }, options);
        check(patched.data[key] === '1', `it is patched with ${strategy}`);
    }
    const options = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.ServerSideApply);
    const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'js' }, data: { p: '1' } };
    const applied = await core.patchNamespacedConfigMap(
        { name: 'js', namespace, body, fieldManager: 'js' },
        options,
    );
    check(applied.data.p === '1', 'it is applied');
    await core.deleteNamespacedConfigMap({ name: 'js', namespace });
    check((await status(() => core.readNamespacedConfigMap({ name: 'js', namespace }))) === 404, 'and gone');
    await core.createNamespace({ body: { metadata: { name: 'js' } } });
    await core.deleteNamespace({ name: 'js' });
    await eventually('a namespace goes', async () => (await status(() => core.readNamespace({ name: 'js' }))) === 404);
    const labels = { app: 'js' };
    await apps.createNamespacedDeployment({
        namespace,
        body: {
            metadata: { name: 'js' },
            spec: {
                replicas: 2,
                selector: { matchLabels: labels },
                template: { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'a:1' }] } },
            },
        },
    });
    await eventually('a deployment is ready', async () => {
        const it = await apps.readNamespacedDeployment({ name: 'js', namespace });
        return it.status.readyReplicas === 2;
    });
    const scale = await apps.readNamespacedDeploymentScale({ name: 'js', namespace });
    scale.spec.replicas = 1;
    await apps.replaceNamespacedDeploymentScale({ name: 'js', namespace, body: scale });
    const it = await apps.readNamespacedDeployment({ name: 'js', namespace });
    check(it.spec.replicas === 1, 'and scaled');
}

async function dynamic() {
    const client = k8s.KubernetesObjectApi.makeApiClient(config);
    const settings = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'any', namespace }, data: { a: 'b' } };
    const made = await client.create(settings);
    check(made.metadata.uid, 'an object of any kind is created');
    made.data.a = 'c';
    check((await client.patch(made)).data.a === 'c', 'and patched');
    check((await client.read(settings)).data.a === 'c', 'and read');
    check((await client.list('v1', 'ConfigMap', namespace)).items.length > 0, 'and listed');
    await client.delete(settings);
    check((await status(() => client.read(settings))) === 404, 'and deleted');
}

async function watches() {
    const seen = [];
    const watch = new k8s.Watch(config);
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const list = await core.listNamespacedConfigMap({ namespace });
    const query = { resourceVersion: list.metadata.resourceVersion, allowWatchBookmarks: true };
    const abort = await watch.watch(
        path,
        query,
        (type, object) => {
            if (object.metadata.name === 'watched') {
                seen.push(type);
            }
        },
        () => {},
    );
    await core.createNamespacedConfigMap({ namespace, body: configMap('watched') });
    await core.deleteNamespacedConfigMap({ name: 'watched', namespace });
    await eventually('a watch tells', async () => seen.join() === 'ADDED,DELETED');
    abort.abort();
    let ended = false;
    await watch.watch(path, { timeoutSeconds: 1 }, () => {}, () => (ended = true));
    await eventually('a watch ends when its time is over', async () => ended);
}

async function informer() {
    const list = () => core.listNamespacedConfigMap({ namespace });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list);
    const seen = [];
    for (const verb of ['add', 'update', 'delete']) {
        informer.on(verb, (object) => object.metadata.name === 'informed' && seen.push(verb));
    }
    await informer.start();
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('informed') });
    made.data.a = 'c';
    await core.replaceNamespacedConfigMap({ name: 'informed', namespace, body: made });
    await eventually('the cache has it', async () => informer.get('informed', namespace)?.data.a === 'c');
    await core.deleteNamespacedConfigMap({ name: 'informed', namespace });
    await eventually('an informer tells', async () => seen.join() === 'add,update,delete');
    await informer.stop();
}

async function pods() {
    await core.createNamespacedPod({
        namespace,
        body: { metadata: { name: 'js' }, spec: { containers: [{ name: 'c', image: 'a:1' }] } },
    });
    await eventually('a pod runs', async () => {
        const it = await core.readNamespacedPod({ name: 'js', namespace });
        return it.status.phase === 'Running';
    });
    check((await core.readNamespacedPodLog({ name: 'js', namespace })).includes('three'), 'its log is read');
    const exec = new k8s.Exec(config);
    const outcome = await new Promise((resolve, reject) =>
        exec.exec(namespace, 'js', 'c', ['exit', '7'], process.stdout, process.stderr, null, false, resolve).catch(reject),
    );
    check(outcome.details.causes[0].message === '7', 'a command ends with its code');
}

process.on('unhandledRejection', (error) => {
    console.log(`FAILED: ${error.message ?? error}`);
    process.exit(1);
});

const flows = { objects, dynamic, watches, informer, pods };
for (const flow of process.argv.slice(2)) {
    await flows[flow]();
    console.log(`done ${flow}`);
}
process.exit(0);
