// franz-go. What the program takes and says: tests/clients/README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	bootstrap = flag.String("bootstrap", "", "")
	topic     = flag.String("topic", "", "")
	group     = flag.String("group", "", "")
	first     = flag.Int("first", 0, "")
	count     = flag.Int("count", 0, "")
	rate      = flag.Int("rate", 0, "records a second; 0 is as fast as it goes")
	codec     = flag.String("codec", "none", "")
	at        = flag.Int64("time", 0, "")
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

var (
	output = bufio.NewWriterSize(os.Stdout, 1<<16)
	lock   sync.Mutex
)

// say writes a line of the answer; it is out after the next flush.
func say(name string, value any) {
	lock.Lock()
	defer lock.Unlock()
	check(json.NewEncoder(output).Encode(map[string]any{name: value}))
}

func flush() {
	lock.Lock()
	defer lock.Unlock()
	check(output.Flush())
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	command := os.Args[1]
	check(flag.CommandLine.Parse(os.Args[2:]))
	commands := map[string]func(context.Context){
		"produce": produce, "consume": consume, "time": offsets, "group": member,
	}
	commands[command](context.Background())
	flush()
}

func client(more ...kgo.Opt) *kgo.Client {
	options := []kgo.Opt{kgo.SeedBrokers(*bootstrap), kgo.AllowAutoTopicCreation()}
	made, err := kgo.NewClient(append(options, more...)...)
	check(err)
	return made
}

// Key and value of a record: every key comes again, no value does.
func record(number int) *kgo.Record {
	return &kgo.Record{
		Topic: *topic,
		Key:   []byte(fmt.Sprintf("key-%d", number%997)),
		Value: []byte(fmt.Sprintf("value-%d", number)),
	}
}

func produce(ctx context.Context) {
	producer := client(
		kgo.ProducerBatchCompression(codecs[*codec]),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.RecordRetries(1_000),
	)
	start := time.Now()
	for number := *first; number < *first+*count; number++ {
		if *rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(number-*first) * time.Second / time.Duration(*rate))))
		}
		producer.Produce(ctx, record(number), func(told *kgo.Record, err error) {
			check(err)
			say("acked", []any{number, told.Partition, told.Offset})
		})
	}
	check(producer.Flush(ctx))
	producer.Close()
	say("done", *count)
}

func show(one *kgo.Record) {
	said := []any{one.Partition, one.Offset, one.Timestamp.UnixMilli(), string(one.Key), string(one.Value)}
	say("record", said)
}

func consume(ctx context.Context) {
	consumer := client(kgo.ConsumeTopics(*topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	starts, err := kadm.NewClient(consumer).ListStartOffsets(ctx, *topic)
	check(err)
	ends, err := kadm.NewClient(consumer).ListEndOffsets(ctx, *topic)
	check(err)
	left := map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, _ := starts.Lookup(*topic, end.Partition); start.Offset < end.Offset {
			left[end.Partition] = end.Offset
		}
	})
	seen := 0
	for len(left) > 0 {
		fetches := consumer.PollFetches(ctx)
		fetches.EachRecord(func(one *kgo.Record) {
			show(one)
			seen++
			if end, waits := left[one.Partition]; waits && one.Offset+1 >= end {
				delete(left, one.Partition)
			}
		})
	}
	say("done", seen)
	flush()
	consumer.Close()
}

func offsets(ctx context.Context) {
	asking := client()
	found, err := kadm.NewClient(asking).ListOffsetsAfterMilli(ctx, *at, *topic)
	check(err)
	ends, err := kadm.NewClient(asking).ListEndOffsets(ctx, *topic)
	check(err)
	found.Each(func(one kadm.ListedOffset) {
		// It tells the end where there is nothing so late.
		if end, _ := ends.Lookup(*topic, one.Partition); one.Offset == end.Offset {
			one.Offset = -1
		}
		say("offset", []any{one.Partition, one.Offset})
	})
	say("done", len(found[*topic]))
	asking.Close()
}

// Assignment is what this member has; it comes and goes by the partition.
type assignment struct {
	lock sync.Mutex
	own  map[int32]bool
}

func (a *assignment) change(partitions map[string][]int32, gained bool) {
	a.lock.Lock()
	defer a.lock.Unlock()
	for _, one := range partitions[*topic] {
		if gained {
			a.own[one] = true
		} else {
			delete(a.own, one)
		}
	}
	list := []int32{}
	for one := range a.own {
		list = append(list, one)
	}
	sort.Slice(list, func(x, y int) bool { return list[x] < list[y] })
	say("assigned", list)
	flush()
}

func member(ctx context.Context) {
	leaving, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	has := assignment{own: map[int32]bool{}}
	told := func(gained bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			has.change(partitions, gained)
		}
	}
	consumer := client(
		kgo.ConsumerGroup(*group), kgo.ConsumeTopics(*topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsAssigned(told(true)), kgo.OnPartitionsRevoked(told(false)), kgo.OnPartitionsLost(told(false)),
	)
	for leaving.Err() == nil {
		fetches := consumer.PollRecords(leaving, 500)
		last := map[int32]int64{}
		fetches.EachRecord(func(one *kgo.Record) {
			show(one)
			last[one.Partition] = one.Offset + 1
		})
		flush()
		// Refused while the group is being made anew: whoever gets the partition reads it again.
		if records := fetches.Records(); len(records) > 0 && consumer.CommitRecords(ctx, records...) == nil {
			positions := [][2]int64{}
			for partition, offset := range last {
				positions = append(positions, [2]int64{int64(partition), offset})
			}
			say("committed", positions)
		}
		consumer.AllowRebalance()
	}
	consumer.CloseAllowingRebalance()
	say("left", true)
}
