# What failed in a language's tool, why, and what to do, by what the tool printed; sourced by bash
# after common.sh. Each `NAME_failed LOG` is for the log of one tool. The first cause that fits is
# told: the rest mostly follows from it.

# said PATTERN: the log has it. What the parentheses of the extended expression found is in `found`.
said() {
  local line
  found=()
  line=$(grep -a -m 1 -E -- "$1" "$log") || return 1
  [[ $line =~ $1 ]] || return 1
  found=("${BASH_REMATCH[@]:1}")
}

# One cause, what to do in lines.
because() {
  local line
  for line in "$@"; do warning "$line"; done
}

out_of_memory() {
  said 'OutOfMemoryError|insufficient memory for the Java Runtime|GC overhead limit exceeded' || return 1
  because "It ran out of memory. Give it more: manifold config:set $1"
}

# The stack's Java, by its first number.
java_version() { javac -version 2>&1 | grep -oE '[0-9]+' | head -n 1; }

# A compiler of Scala reads no classes of a Java that came much later. $1 is the tool's name, $2
# where its version stands.
java_is_too_new() {
  said 'UnsupportedClassVersionError|class file has wrong version|bad constant pool index|in compiler mirror not found' || return 1
  because "A library, or this version of $1 or Scala, does not go with the stack's Java $(java_version)." \
    "Raise $2 and scalaVersion, or choose another stack (\`manifold stack\`)."
}

maven_failed() {
  local log=$1 found
  warning "Failed to build app with Maven."
  if said '(release version|invalid target release:|invalid source release:) *([0-9.]+)'; then
    because "pom.xml asks for Java ${found[1]}; the stack $STACK has Java $(java_version)." \
      "Set maven.compiler.release in its properties to what the stack has, or choose another stack (\`manifold stack\`)."
  elif said '(Source|Target) option ([0-9.]+) is no longer supported. Use ([0-9.]+) or later'; then
    because "pom.xml asks for Java ${found[1]}, which the stack's Java $(java_version) cannot compile for any more." \
      "Set maven.compiler.source and maven.compiler.target in its properties to ${found[2]} or later."
  elif said 'RequireJavaVersion failed|Detected JDK .* is not in the allowed range'; then
    because "pom.xml allows other versions of Java than the stack's $(java_version) (maven-enforcer-plugin, requireJavaVersion)." \
      "Allow it there, or choose another stack (\`manifold stack\`)."
  elif said 'ERROR.*maven-default-http-blocker'; then
    because "pom.xml or settings.xml names a repository by http://, which Maven refuses: use https://."
  elif said 'ERROR.*Could not find artifact ([^ ]+)'; then
    because "No repository that was asked has ${found[0]}." \
      "Check its name and version in pom.xml. A private repository and its credentials belong into settings.xml (or set MAVEN_SETTINGS_PATH)."
  elif said 'ERROR.*Could not transfer (artifact|metadata) ([^ ]+)|ERROR.*status code: 40[13]' ||
    { said 'No plugin found for prefix' && said 'Could not transfer (artifact|metadata) ([^ ]+)'; }; then
    because "A repository could not be reached, or did not let us in${found[1]:+: ${found[1]} was not fetched}." \
      "If it is private, check the credentials in settings.xml. Else try again later: what came already is kept."
  elif said 'Non-parseable POM|Malformed POM|The build could not read [0-9]+ project'; then
    because "Maven cannot read pom.xml: see the line with its place above." \
      "\`mvn validate\` on your machine tells the same."
  elif said 'Unknown lifecycle phase "([^"]*)"|No plugin found for prefix .([^ '"'"']*)'; then
    because "Maven knows no goal \`${found[0]:-${found[1]}}\`: correct the config var MAVEN_CUSTOM_GOALS (now: ${MAVEN_CUSTOM_GOALS:-not set})."
  elif said 'Could not find or load main class org.apache.maven.wrapper|maven-wrapper.jar'; then
    because "The wrapper is not complete: commit all of .mvn/wrapper (\`mvn wrapper:wrapper\` makes it), or remove mvnw to use the stack's Maven."
  elif said 'COMPILATION ERROR'; then
    because "The sources do not compile with the stack's Java $(java_version): see the lines with ERROR above." \
      "Files that differ only in case, or that are not committed, are missing here: \`git status --ignored\` shows those."
  elif said 'There (are|were) test failures'; then
    because "Tests failed. Without MAVEN_CUSTOM_OPTS and MAVEN_CUSTOM_GOALS a build runs none."
  elif ! out_of_memory "MAVEN_OPTS=-Xmx768m"; then
    because "Its output above says why; \`mvn clean install\` on your machine does the same."
  fi
}

sbt_failed() {
  local log=$1 found
  warning "Failed to build with sbt."
  if said 'Not a valid (command|key): stage'; then
    because "The build has no task \`stage\`, which makes what the dyno starts." \
      "Add sbt-native-packager to project/plugins.sbt and enablePlugins(JavaAppPackaging) to build.sbt, or name other tasks: manifold config:set SBT_TASKS=..."
  elif said 'Not a valid (command|key): ([^ ]+)'; then
    because "The build has no task \`${found[1]}\`: correct the config vars SBT_TASKS and SBT_PRE_TASKS."
  elif said 'is already defined as (object|class|case class)'; then
    because "A class is there twice; if it was renamed or moved, what is left of earlier builds may be the cause." \
      "Start anew: manifold builds:cache:purge, then deploy again."
  elif said 'unresolved dependency: ([^ :]+)|Error downloading ([^ ]+)|([^ ]+): not found$'; then
    because "No repository that was asked has ${found[0]:-${found[1]:-${found[2]}}}, or none could be reached." \
      "Check its name and its version, also that it exists for this version of Scala (%% and scalaVersion)."
  elif java_is_too_new sbt "sbt.version in project/build.properties"; then
    :
  elif said 'Could not (retrieve|find or load main class) .*(sbt|xsbt)'; then
    because "sbt itself could not be fetched: check sbt.version in project/build.properties, or try again later."
  elif said '\(.*[Cc]ompileIncremental\) Compilation failed|errors? found$'; then
    because "The sources do not compile: see the lines with error above."
  elif ! out_of_memory "SBT_OPTS='-Xmx900m -Xss2m'"; then
    because "Its output above says why; the same tasks on your machine should do the same."
  fi
}

mill_failed() {
  local log=$1 found
  warning "Failed to build with Mill."
  if java_is_too_new Mill .mill-version; then
    :
  elif said 'Cannot resolve ([^ ]+)\. '; then
    because "The build has no task \`${found[0]}\`: correct the config var MILL_TASK."
  elif said 'Resolution failed for' && said '^ +([^ :]+:[^ :]+:[^ :]+) *$'; then
    because "No repository that was asked has ${found[0]}, or none could be reached." \
      "Check its name and its version, also that it exists for this version of Scala (two colons and scalaVersion)."
  elif said '(build\.(sc|mill):[0-9]+(:[0-9]+)?)'; then
    because "Mill cannot compile the build at ${found[0]}: see above."
  elif said ' Compilation failed$|errors? found$'; then
    because "The sources do not compile: see the lines with error above."
  elif ! out_of_memory "JAVA_TOOL_OPTIONS=-Xmx768m"; then
    because "Its output above says why; the same task on your machine should do the same."
  fi
}

leiningen_failed() {
  local log=$1 found
  warning "Failed to build with Leiningen."
  if said 'Could not find artifact ([^ ]+)'; then
    because "No repository that was asked has ${found[0]}." \
      "Check its name and version in project.clj; one that is not in Clojars or Maven Central needs its place in :repositories."
  elif said 'Could not transfer artifact ([^ ]+)|(Unknown ?Host|ConnectException)|Failed to download'; then
    because "A repository could not be reached${found[0]:+: ${found[0]} was not fetched}." \
      "Try again later: what came already is kept. bin/lein fetches Leiningen itself: without it the stack's is used."
  elif said "'([^']*)' is not a task"; then
    because "Leiningen knows no task \`${found[0]}\`: correct the config var LEIN_BUILD_TASK or BUILD_COMMAND, or add its plugin to :plugins in project.clj."
  elif said 'Error loading .*project\.clj|[(/ ]project\.clj:[0-9]+|No project\.clj found'; then
    because "Leiningen cannot read project.clj: see above for the place."
  elif said 'Could not locate ([^ ]+)__init\.class'; then
    because "There is no namespace ${found[0]//\//.} on the classpath." \
      "Its library is missing in :dependencies (those of the profile :dev are left out), or its file is not committed. A file's name has _ where its namespace has -."
  elif said 'Syntax error .*(compiling|macroexpanding|reading source).* at \(([^)]*)\)|compiling:\(([^)]*)\)'; then
    because "The place ${found[1]:-${found[2]}} does not compile: see above."
  elif said 'UnsupportedClassVersionError|has been compiled by a more recent version of the Java'; then
    because "A library asks for a newer Java than the stack's $(java_version): take an older version of it, or choose another stack (\`manifold stack\`)."
  elif ! out_of_memory "LEIN_JVM_OPTS=-Xmx768m"; then
    because "Its output above says why; the same command on your machine should do the same."
  fi
}

collectstatic_failed() {
  local log=$1 found
  warning "Error while running '\$ python manage.py collectstatic --noinput'."
  warning "See the traceback above for details."
  if said 'without having set the STATIC_ROOT setting'; then
    because "The settings name no place to collect to. Add: STATIC_ROOT = BASE_DIR / \"staticfiles\""
  elif said "The SECRET_KEY setting must not be empty"; then
    because "SECRET_KEY is empty: if the settings take it from a config var, set that one: manifold config:set SECRET_KEY=..."
  elif said "^KeyError: '([^']+)'|Set the ([^ ]+) environment variable|^decouple\.UndefinedValueError: ([^ ]+) not found"; then
    found=("${found[0]:-${found[1]:-${found[2]}}}")
    because "The settings read \`${found[0]}\`, which builds see only as a config var: manifold config:set ${found[0]}=..."
  elif said "ModuleNotFoundError: No module named '([^']+)'|ImportError: cannot import name '([^']+)'"; then
    because "Python finds no \`${found[0]:-${found[1]}}\`: add its package to what is installed (requirements.txt or the lock file), or commit its file."
  elif said "FileNotFoundError: .*: '([^']+)'"; then
    because "\`${found[0]#"${build_dir:-}/"}\` is missing: STATICFILES_DIRS or the settings name it. Git keeps no empty directories, and .gitignore may hide it."
  elif said "The file '([^']+)' could not be found|Missing staticfiles manifest entry for '([^']+)'"; then
    because "A style sheet or a script refers to \`${found[0]:-${found[1]}}\`, which is not there: correct it, or use a storage that does not look (CompressedStaticFilesStorage)."
  elif said 'OperationalError|could not connect to server|Connection refused'; then
    because "The settings or an app use the database or another service while they are loaded. A build may have none: move that behind the start of the app."
  elif said '^(SyntaxError|IndentationError|TabError): (.*)'; then
    because "A file is no Python of this version: ${found[1]}."
  elif said '^([A-Za-z_.]+(Error|Exception|ImproperlyConfigured)): (.+)'; then
    because "${found[0]##*.}: ${found[2]}"
  fi
  because "To go on without it: manifold config:set DISABLE_COLLECTSTATIC=1"
}
