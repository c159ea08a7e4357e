# A client made of Ruby's `websocket`, which has the handshake and the frames but no socket: hixie-75, 0, 7 and 8. The README
# says what it understands and reports. Argument: the version.

require 'socket'
require 'uri'
require 'websocket'
require_relative '../reporting'

VERSION = { 'hixie-75' => 75, '0' => 0 }.fetch(ARGV.first) { Integer(ARGV.first) }
IS_HIXIE = [0, 75].include?(VERSION)
SUBPROTOCOL_HEADER = VERSION == 75 ? 'websocket-protocol' : 'sec-websocket-protocol'
PROOF_BYTES = VERSION.zero? ? 16 : 0
PIECE_BYTES = 1 << 20
NO_CODE_RECEIVED = 1005
NO_CLOSE_RECEIVED = 1006

class Connection
  attr_reader :socket

  def initialize(url, id, subprotocol)
    @id = id
    uri = URI.parse(url)
    @socket = TCPSocket.new(uri.host, uri.port)
    @socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
    protocols = subprotocol ? [subprotocol] : []
    @handshake = WebSocket::Handshake::Client.new(
      url: url, version: VERSION, protocols: protocols, origin: 'http://client.example'
    )
    @socket.write(@handshake.to_s)
    @frames = WebSocket::Frame::Incoming::Client.new(version: VERSION)
    @first = ''.b
    @code = IS_HIXIE ? nil : NO_CLOSE_RECEIVED
    @reason = ''
    @is_clean = false
  end

  # False when nothing more will come.
  def read
    data = @socket.readpartial(PIECE_BYTES)
    return shake_hands(data) unless @handshake.finished?

    take_frames(data)
    true
  rescue EOFError, Errno::ECONNRESET
    report('closed', id: @id, code: @code, reason: @reason, clean: @is_clean) if @handshake.finished?
    false
  end

  def write(type, data = '', code: nil)
    frame = WebSocket::Frame::Outgoing::Client.new(version: VERSION, type: type, data: data, code: code)
    bytes = frame.to_s
    raise "#{type}: #{frame.error}" if frame.error?

    @socket.write(bytes)
  rescue Errno::EPIPE, Errno::ECONNRESET
    # What comes from the socket says how it ended.
  end

  def close(code, reason)
    return @socket.close_write if VERSION == 75

    @has_closed = true
    # Without a code it sends 1000.
    write(:close, reason || '', code: code)
  end

  def abort
    @socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_LINGER, LINGER_OFF)
    @socket.close
  end

  private

  # The library takes the head and the proof of version 0 in one piece alone, and would strip what comes behind them.
  def shake_hands(data)
    @first << data
    head, blank_line, behind = @first.partition("\r\n\r\n")
    return true if blank_line.empty?

    @handshake << head + blank_line + behind.slice!(0, PROOF_BYTES)
    if @handshake.valid?
      report('opened', id: @id, subprotocol: @handshake.headers[SUBPROTOCOL_HEADER])
      take_frames(behind)
      true
    else
      status = @first[%r{\AHTTP/1\.1 (\d{3})}, 1].to_i
      status == 101 ? report('failed', id: @id, error: @handshake.error.to_s) : report('refused', id: @id, status: status)
      false
    end
  end

  def take_frames(data)
    @frames << data
    while (frame = @frames.next)
      take(frame)
    end
    report('failed', id: @id, error: @frames.error.to_s) if @frames.error?
  end

  def take(frame)
    case frame.type
    when :text, :binary then report_message(frame.to_s, frame.type == :binary, id: @id)
    when :ping then write(:pong, frame.to_s)
    when :pong then report('pong', id: @id, data: frame.to_s.to_s)
    when :close
      @code = IS_HIXIE ? nil : frame.code || NO_CODE_RECEIVED
      @reason = frame.to_s.dup.force_encoding('UTF-8')
      @is_clean = true
      write(:close, '', code: frame.code) unless @has_closed
    end
  end
end

def obey(connection, command)
  word, value = command.first
  case word
  when 'open' then return Connection.new(value, command['id'], command['subprotocol'])
  when 'send' then connection&.write(:text, value)
  when 'send_size' then connection.write(:text, text_of(value))
  when 'send_binary' then connection.write(:binary, value.unpack1('m'))
  when 'ping' then connection.write(:ping, value)
  when 'close' then connection.close(value, command['reason'])
  when 'abort' then return connection&.abort
  end
  connection
end

connection = nil
loop do
  ready, = IO.select([$stdin, connection&.socket].compact)
  if connection && ready.include?(connection.socket)
    unless connection.read
      connection.socket.close
      connection = nil
    end
  elsif (line = $stdin.gets)
    connection = obey(connection, JSON.parse(line))
  else
    exit
  end
end
