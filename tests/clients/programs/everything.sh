# Every program of docs/clients.md as a person types it, for `tailrace up -- sh`: nothing here tells of a
# proxy, and what knows none has `tailrace run` before it. `== NAME` stands before what each one prints.
set -eu
python=$PROGRAMS/python/bin/python
node=$PROGRAMS/../node24/node_modules/node/bin/node
hello=https://web.corp.example/hello
ssh="-F $FIELD/ssh_config"
export PGHOST=db.corp.example PGUSER=ops PGDATABASE=ops PGSSLMODE=verify-full PGPASSFILE="$FIELD/.pgpass"
export REDISCLI_AUTH=correct-horse

echo '== curl'
curl -sSf $hello

echo '== Go net/http, static'
fetch $hello

echo '== Python requests'
$python "$CLIENTS/programs/requested.py" requests $hello

echo '== Python httpx'
$python "$CLIENTS/programs/requested.py" httpx $hello

echo '== Node fetch'
$node "$CLIENTS/programs/fetched.mjs" $hello

echo '== Java HttpClient'
java -Djavax.net.ssl.trustStore="$FIELD/ca.p12" -Djavax.net.ssl.trustStorePassword=changeit \
  -cp "$FIELD/java" Sent $hello

echo '== git over https: clone, push'
git clone --quiet https://web.corp.example/git/repo.git by-https
git -C by-https push --quiet origin HEAD:refs/heads/by-https
cat by-https/hello

echo '== git over ssh: clone, push'
export GIT_SSH_COMMAND="$GIT_SSH_COMMAND $ssh"
git clone --quiet "ssh://git.corp.example$FIELD/git/repo.git" by-ssh
git -C by-ssh push --quiet origin HEAD:refs/heads/by-ssh
cat by-ssh/hello

echo '== grpcurl'
grpcurl -cacert "$FIELD/ca.pem" rpc.corp.example:50051 grpc.health.v1.Health/Check

echo '== kubectl get'
kubectl get pods -o name

echo '== kubectl logs -f'
kubectl logs -f web-0

echo '== kubectl exec -i'
echo there and back | kubectl exec -i web-0 -- cat

echo '== kubectl port-forward'
kubectl port-forward pod/web-0 :443 >forwarded &
forward=$!
until port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' forwarded) && [ "$port" ]; do
  kill -0 $forward
  sleep 0.05
done
curl -sSf -k -H 'Host: web.corp.example' "https://127.0.0.1:$port/hello"
kill $forward

echo '== psql, verify-full'
psql --no-psqlrc -qAt -c 'select usename from pg_user'

echo '== Python psycopg, verify-full'
$python "$CLIENTS/programs/queried.py" 'select usename from pg_user'

echo '== run psql, verify-full'
tailrace run psql --no-psqlrc -qAt -c 'select usename from pg_user'

echo '== run Python psycopg, verify-full'
tailrace run $python "$CLIENTS/programs/queried.py" 'select usename from pg_user'

echo '== run redis-cli'
tailrace run redis-cli -h cache.corp.example set greeting hello
tailrace run redis-cli -h cache.corp.example get greeting

echo '== run ssh'
tailrace run ssh $ssh host.corp.example cat "$FIELD/greeting"

echo '== run scp'
tailrace run scp -q $ssh "host.corp.example:$FIELD/greeting" by-scp
cat by-scp

echo '== run sftp'
echo "get $FIELD/greeting by-sftp" >batch
tailrace run sftp -q -b batch $ssh host.corp.example >&2
cat by-sftp

if command -v gh >&2; then
  echo '== gh api, gh pr list'
  export GH_HOST=hub.corp.example GH_ENTERPRISE_TOKEN=none
  gh api repos/ops/repo --jq .full_name
  gh pr list --repo ops/repo
fi

if command -v temporal >&2; then
  echo '== temporal: health, namespace, workflows'
  export TEMPORAL_ADDRESS=temporal.corp.example:7233
  temporal operator cluster health
  temporal operator namespace describe default -o json | sed -n 's/^ *"name": \(.*\),$/\1/p'
  temporal workflow list >&2
fi
