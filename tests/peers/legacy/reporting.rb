# What processes of Ruby share: reports as JSON lines, and what the tests send.

require 'digest/sha1'
require 'json'

TEXT_SHOWN_BYTES = 200
PERIOD = (36...119).map(&:chr).join

def report(event, details = {})
  puts JSON.generate({ event: event }.merge(details))
  $stdout.flush
end

def report_message(data, is_binary, details = {})
  shown = data.bytesize <= TEXT_SHOWN_BYTES && !is_binary ? { text: data.dup.force_encoding('UTF-8') } : {}
  about = { binary: is_binary, bytes: data.bytesize, sha1: Digest::SHA1.hexdigest(data) }
  report('message', details.merge(about, shown))
end

# A text of ASCII alone in which a lost, doubled or swapped part shows: the length of the period is a prime.
def text_of(bytes)
  (PERIOD * (bytes / PERIOD.size + 1))[0, bytes]
end

# With this the end of a connection is a reset, the rudest of all.
LINGER_OFF = [1, 0].pack('ii')
