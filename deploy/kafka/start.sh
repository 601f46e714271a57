#!/bin/sh
# Apache Kafka 4.1 from its Maven artifacts: one KRaft node on the loopback interface. Needs Java 17 and Maven.
#
#   deploy/kafka/start.sh [PORT [FOLDER]]     stays in the foreground; Ctrl-C stops it
#   deploy/kafka/start.sh --fetch             only fetches the jars
#
# PORT serves clients, PORT + 1 the controller. FOLDER holds the log; without one a temporary folder is made.
# KAFKA_EXTRA names a file of properties that replace or join those below (more nodes, TLS, SASL); KAFKA_CLUSTER is the
# cluster's id, the same for every node of it; KAFKA_FORMAT holds more arguments for formatting the log (SCRAM users).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
jars=${KAFKA_JARS:-$here/../../.kafka/lib}

if [ ! -e "$jars/.complete" ]; then
    echo "fetching Apache Kafka by Maven into $jars" >&2
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" >&2
    touch "$jars/.complete"
fi
[ "${1:-}" != --fetch ] || exit 0

port=${1:-9092}
folder=${2:-$(mktemp -d "${TMPDIR:-/tmp}/probewatch-kafka.XXXXXX")}
mkdir -p "$folder"
cat > "$folder/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$folder/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
# One worker at a time starts here, and tests end sessions on purpose.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
PROPERTIES
[ -z "${KAFKA_EXTRA:-}" ] || cat "$KAFKA_EXTRA" >> "$folder/server.properties" # of two values the last one counts

run() {
    exec java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" "$@"
}

if [ ! -e "$folder/log/meta.properties" ]; then
    cluster=${KAFKA_CLUSTER:-$(run kafka.tools.StorageTool random-uuid)}
    # shellcheck disable=SC2086 # several arguments
    (run kafka.tools.StorageTool format -t "$cluster" -c "$folder/server.properties" ${KAFKA_FORMAT:-}) >&2
fi
echo "Apache Kafka on 127.0.0.1:$port, log in $folder" >&2
run kafka.Kafka "$folder/server.properties"
