// The Java client. What the program takes and says: tests/clients/README.md.

import java.io.PrintStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public final class Client {
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false);
    private static final StringBuilder SAID = new StringBuilder();
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    private final Map<String, String> options = new HashMap<>();

    public static void main(String[] words) throws Exception {
        Client client = new Client();
        for (int at = 1; at < words.length; at += 2) {
            client.options.put(words[at].substring(2), words[at + 1]);
        }
        switch (words[0]) {
            case "produce" -> client.produce();
            case "consume" -> client.consume();
            case "time" -> client.time();
            case "group" -> client.group();
            default -> throw new IllegalArgumentException(words[0]);
        }
        flush();
    }

    private String option(String name, String otherwise) {
        return options.getOrDefault(name, otherwise);
    }

    private long number(String name) {
        return Long.parseLong(option(name, "0"));
    }

    /** A line of the answer; it is out after the next flush. */
    private static synchronized void say(String line) {
        SAID.append(line).append('\n');
    }

    private static synchronized void flush() {
        OUT.print(SAID);
        OUT.flush();
        SAID.setLength(0);
    }

    private Properties base() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", options.get("bootstrap"));
        return settings;
    }

    private void produce() throws Exception {
        Properties settings = base();
        settings.put("compression.type", option("codec", "none"));
        settings.put("linger.ms", "5");
        long first = number("first");
        long count = number("count");
        long rate = number("rate");
        long start = System.nanoTime();
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (long done = 0; done < count; done++) {
                long due = rate == 0 ? 0 : start + done * 1_000_000_000L / rate - System.nanoTime();
                if (due > 0) {
                    Thread.sleep(due / 1_000_000, (int) (due % 1_000_000));
                }
                long number = first + done;
                sent.add(producer.send(new ProducerRecord<>(options.get("topic"), "key-" + number % 997, "value-" + number)));
            }
            for (long done = 0; done < count; done++) {
                RecordMetadata told = sent.get((int) done).get();
                say("{\"acked\":[%d,%d,%d]}".formatted(first + done, told.partition(), told.offset()));
            }
        }
        say("{\"done\":%d}".formatted(count));
    }

    private KafkaConsumer<String, String> consumer(String group) {
        Properties settings = base();
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("session.timeout.ms", "6000");
        settings.put("heartbeat.interval.ms", "500");
        if (group != null) {
            settings.put("group.id", group);
        }
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    private List<TopicPartition> partitions(KafkaConsumer<?, ?> consumer) {
        String topic = options.get("topic");
        return consumer.partitionsFor(topic).stream().map(one -> new TopicPartition(topic, one.partition())).toList();
    }

    private static void show(ConsumerRecord<String, String> one) {
        // Keys and values of this test need no escapes.
        say("{\"record\":[%d,%d,%d,\"%s\",\"%s\"]}"
            .formatted(one.partition(), one.offset(), one.timestamp(), one.key(), one.value()));
    }

    private void consume() {
        try (var consumer = consumer(null)) {
            List<TopicPartition> every = partitions(consumer);
            consumer.assign(every);
            consumer.seekToBeginning(every);
            Map<TopicPartition, Long> ends = consumer.endOffsets(every);
            Map<TopicPartition, Long> starts = consumer.beginningOffsets(every);
            ends.entrySet().removeIf(end -> starts.get(end.getKey()) >= end.getValue());
            long count = 0;
            while (!ends.isEmpty()) {
                for (var one : consumer.poll(Duration.ofSeconds(1))) {
                    show(one);
                    count++;
                    ends.computeIfPresent(new TopicPartition(one.topic(), one.partition()),
                        (partition, end) -> one.offset() + 1 >= end ? null : end);
                }
            }
            say("{\"done\":%d}".formatted(count));
        }
    }

    private void time() {
        try (var consumer = consumer(null)) {
            List<TopicPartition> every = partitions(consumer);
            var asked = every.stream().collect(Collectors.toMap(one -> one, one -> number("time")));
            consumer.offsetsForTimes(asked).forEach((partition, found) ->
                say("{\"offset\":[%d,%d]}".formatted(partition.partition(), found == null ? -1 : found.offset())));
            say("{\"done\":%d}".formatted(every.size()));
        }
    }

    /** Says which partitions this member has now. */
    private static final class Told implements ConsumerRebalanceListener {
        private final TreeSet<Integer> own = new TreeSet<>();

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> gained) {
            gained.forEach(one -> own.add(one.partition()));
            tell();
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> gone) {
            gone.forEach(one -> own.remove(one.partition()));
            tell();
        }

        private void tell() {
            say("{\"assigned\":%s}".formatted(own));
            flush();
        }
    }

    private void group() throws Exception {
        AtomicBoolean leaving = new AtomicBoolean();
        Thread main = Thread.currentThread();
        // SIGTERM: the JVM waits for this hook, and the hook for the member to have left.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            leaving.set(true);
            try {
                main.join(20_000);
            } catch (InterruptedException gone) {
                Thread.currentThread().interrupt();
            }
        }));
        try (var consumer = consumer(options.get("group"))) {
            consumer.subscribe(List.of(options.get("topic")), new Told());
            while (!leaving.get()) {
                var records = consumer.poll(Duration.ofMillis(200));
                records.forEach(Client::show);
                flush();
                if (records.isEmpty()) {
                    continue;
                }
                try {
                    consumer.commitSync(PATIENCE);
                    say(records.partitions().stream().map(one -> {
                        var of = records.records(one);
                        return "[%d,%d]".formatted(one.partition(), of.get(of.size() - 1).offset() + 1);
                    }).collect(Collectors.joining(",", "{\"committed\":[", "]}")));
                } catch (CommitFailedException | RebalanceInProgressException | TimeoutException refused) {
                    // The group is being made anew: whoever gets the partition reads it again.
                }
            }
        }
        say("{\"left\":true}");
        flush();
    }
}
